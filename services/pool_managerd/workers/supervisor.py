"""The one owner of this node's workers: starts and ends them as told, idempotently by worker id."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

from llorch.auth import same_token
from llorch.background import TaskSupervisor
from llorch.clock import Clock
from llorch.errors import AlreadyExists, NotFound, Reason, Unavailable
from llorch.identifiers import secret_token
from llorch.logs import get_logger
from llorch.ports import join_address, split_address
from pool_managerd.devices.device import Device, OwnUse
from pool_managerd.models.references import LocatedModel
from pool_managerd.workers.command import (
    WORKER_PROGRAM,
    EngineChoice,
    EnginePolicy,
    choose_engine,
    worker_command,
    worker_environment,
)
from pool_managerd.workers.identity import ProcessIdentity
from pool_managerd.workers.journal import Journal, Stage, WorkerRecord
from pool_managerd.workers.leftovers import end_leftover
from pool_managerd.workers.lifecycle import TERMINAL, WorkerState
from pool_managerd.workers.log_file import forget_oldest_logs
from pool_managerd.workers.spec import WorkerSpec
from pool_managerd.workers.status import WorkerStatus
from pool_managerd.workers.worker import Launch, Worker

log = get_logger(__name__)

_KEEP_ENDED = 200  # statuses of ended workers that nobody has acknowledged
_RETRY_MS = 1000
_CLOSE_BEYOND_GRACE_S = 3.0
_GIB = 2**30


class NodeDevices(Protocol):
    @property
    def by_id(self) -> Mapping[str, Device]: ...

    async def memory_back(self, pid: int, within_s: float) -> bool: ...


@dataclass(frozen=True, slots=True)
class WorkerRules:
    """How workers of this node are run, by its settings.

    `bind_host` is where they listen. `stop_grace_s` lies between SIGTERM and SIGKILL. `environment` is the pool
    manager's own, of which workers get very little.
    """

    bind_host: str
    stop_grace_s: float
    policy: EnginePolicy
    logs: Path
    environment: Mapping[str, str]
    program: tuple[str, ...] = WORKER_PROGRAM
    load_base_s: float = 300.0
    load_s_per_gib: float = 20.0


class Supervisor:
    """Also the `WorkerHost` of its workers.

    Commands about one worker id are taken one after the other, those about different ids side by side. Worker
    ids are single-use: one that was seen once, even in a stop that came before its start, never starts again.
    """

    def __init__(
        self,
        *,
        rules: WorkerRules,
        journal: Journal,
        devices: NodeDevices,
        find_model: Callable[[str], Awaitable[LocatedModel]],
        shut_down: Callable[[str, str], Awaitable[bool]],
        changed: Callable[[], None],
        tasks: TaskSupervisor,
        clock: Clock,
    ) -> None:
        self._rules = rules
        self._journal = journal
        self._devices = devices
        self._find_model = find_model
        self._shut_down = shut_down
        self.status_changed = changed
        self._tasks = tasks
        self._clock = clock
        self._workers: dict[str, Worker] = {}
        self._lives: set[asyncio.Task[None]] = set()
        self._records: dict[str, WorkerRecord] = {}
        self._used_ids: set[str] = set()
        self._command_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._journal_lock = asyncio.Lock()
        self._is_open = False
        self._ready_address = ""
        self._advertise_host = ""

    async def open(self, *, ready_address: str, advertise_host: str) -> None:
        """Ends what an earlier life of this pool manager left running, and remembers the ids that it used.

        Workers report to `ready_address`; the orchestrator finds them at `advertise_host`.
        """
        self._ready_address = ready_address
        self._advertise_host = advertise_host
        records = await asyncio.to_thread(self._journal.read_all)
        self._used_ids.update(record.worker_id for record in records)
        left = [record for record in records if record.stage in (Stage.INTENDED, Stage.STARTED)]
        await asyncio.gather(*(self._end_leftover(record) for record in left))
        await asyncio.to_thread(self._journal.forget_oldest_ended)
        await asyncio.to_thread(forget_oldest_logs, self._rules.logs)
        self._is_open = True

    async def start(self, spec: WorkerSpec) -> WorkerStatus:
        """Returns once the start is on disk; the process follows.

        Raises what makes it impossible (device, model file), and `AlreadyExists` for an id that stands for
        something else.
        """
        if not self._is_open:
            raise Unavailable(Reason.DRAINING, "this pool manager is just starting or ending", retry_after_ms=_RETRY_MS)
        async with self._one_at_a_time(spec.worker_id):
            known = self._workers.get(spec.worker_id)
            if known is not None and known.status.spec == spec:
                return known.status
            if known is not None or spec.worker_id in self._used_ids:
                raise AlreadyExists(
                    Reason.WORKER_ID_USED, f'the worker id "{spec.worker_id}" was used before; choose a new one'
                )
            choice = choose_engine(spec.device_ids, self._devices.by_id, self._rules.policy)
            model = await self._find_model(spec.source)
            worker = await self._accept(spec, choice, model)
        if not self._is_open:  # the end began while the disk was busy: whoever ends the workers did not see this one
            worker.kill()
        life = self._tasks.spawn(f"worker {spec.worker_id}", self._live(worker))
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)
        self.status_changed()
        return worker.status

    async def stop(self, worker_id: str) -> WorkerState:
        """Returns once the stop has begun. An unknown id becomes a used one."""
        async with self._one_at_a_time(worker_id):
            worker = self._workers.get(worker_id)
            if worker is not None:
                worker.stop(self._rules.stop_grace_s)
                return worker.status.state
            if worker_id not in self._used_ids:
                await self._write(WorkerRecord(worker_id, Stage.REFUSED))
                self._used_ids.add(worker_id)
            return WorkerState.EXITED

    async def report_ready(self, worker_id: str, address: str, engine: bytes, memory_mib: tuple[int, ...]) -> None:
        worker = self._known(worker_id)
        _, port = split_address(address)
        worker.became_ready(join_address(self._advertise_host, port), engine, memory_mib)
        if worker.status.state is WorkerState.READY:
            await self._renew(replace(self._records[worker_id], address=address))

    def report_failed(self, worker_id: str, reason: Reason, message: str) -> None:
        self._known(worker_id).said_it_failed(reason, message)

    def note_stats(self, worker_id: str, stats: bytes) -> None:
        worker = self._workers.get(worker_id)
        if worker is not None and worker.status.state is WorkerState.READY:
            worker.said_what_it_does(stats)

    def worker_by_ready_token(self, token: str) -> str | None:
        for record in self._records.values():
            if same_token(token, record.ready_token):
                return record.worker_id
        return None

    def statuses(self) -> tuple[WorkerStatus, ...]:
        return tuple(worker.status for worker in self._workers.values())

    def own_use(self) -> OwnUse:
        memory_mib: dict[str, int] = {}
        for status in self.statuses():
            for device_id, held in zip(status.spec.device_ids, status.held_mib(), strict=False):
                memory_mib[device_id] = memory_mib.get(device_id, 0) + held
        alive = [status for status in self.statuses() if status.pid and status.state not in TERMINAL]
        return OwnUse({status.pid: status.spec.worker_id for status in alive}, memory_mib)

    def log_of(self, worker_id: str) -> tuple[Path, asyncio.Event]:
        """Its log file, and what is set once nothing will be added to it."""
        worker = self._workers.get(worker_id)
        if worker is not None:
            return worker.log_path, worker.ended
        path = self._log_path(worker_id)
        if not path.is_file():
            raise _unknown(worker_id)
        ended = asyncio.Event()
        ended.set()
        return path, ended

    def forget_ended(self, worker_ids: Iterable[str]) -> None:
        """Their end was taken note of by who wanted to know; the ids stay used."""
        for worker_id in worker_ids:
            worker = self._workers.get(worker_id)
            if worker is not None and worker.status.state in TERMINAL:
                del self._workers[worker_id]

    async def close(self, grace_s: float) -> None:
        """Starts nothing any more, ends every worker and waits for it, within a bound."""
        self._is_open = False
        for worker in self._workers.values():
            worker.stop(grace_s)
        if not self._lives:
            return
        _, left = await asyncio.wait(self._lives, timeout=grace_s + _CLOSE_BEYOND_GRACE_S)
        if left:
            log.error("workers_did_not_end", workers=[life.get_name() for life in left])

    def kill_all(self) -> None:
        """Leaves nothing running, at once and without a word to anybody."""
        for worker in self._workers.values():
            worker.kill()

    def uses(self, source: str) -> bool:
        """Whether a worker that has not ended has this model's file open."""
        return any(status.spec.source == source and status.state not in TERMINAL for status in self.statuses())

    async def note_started(self, worker_id: str, process: ProcessIdentity | None) -> None:
        await self._renew(replace(self._records[worker_id], stage=Stage.STARTED, process=process))

    async def ask_shutdown(self, status: WorkerStatus) -> bool:
        return await self._shut_down(status.address, status.access_token)

    async def memory_back(self, pid: int, within_s: float) -> bool:
        return await self._devices.memory_back(pid, within_s)

    async def _accept(self, spec: WorkerSpec, choice: EngineChoice, model: LocatedModel) -> Worker:
        record = WorkerRecord(
            spec.worker_id, Stage.INTENDED, spec, access_token=secret_token(), ready_token=secret_token()
        )
        with _disk_errors_told(spec.worker_id):
            self._log_path(spec.worker_id).touch(mode=0o600)
        await self._write(record)
        self._records[spec.worker_id] = record
        self._used_ids.add(spec.worker_id)
        status = WorkerStatus(
            spec, WorkerState.STARTING, start_time=self._clock.wall(), access_token=record.access_token
        )
        worker = Worker(status, self._launch(spec, record, choice, model), self, self._clock)
        self._workers[spec.worker_id] = worker
        return worker

    def _launch(self, spec: WorkerSpec, record: WorkerRecord, choice: EngineChoice, model: LocatedModel) -> Launch:
        command = worker_command(
            spec,
            choice,
            self._rules.policy,
            model_path=model.path,
            bind=join_address(self._rules.bind_host, 0),
            ready_address=self._ready_address,
            program=self._rules.program,
        )
        environment = worker_environment(
            self._rules.environment, choice, access_token=record.access_token, ready_token=record.ready_token
        )
        deadline_s = self._rules.load_base_s + self._rules.load_s_per_gib * model.size_bytes / _GIB
        return Launch(command, environment, self._log_path(spec.worker_id), deadline_s)

    async def _live(self, worker: Worker) -> None:
        await worker.run()
        worker_id = worker.status.spec.worker_id
        record = self._records.pop(worker_id)
        await self._write_if_possible(record.as_ended())
        ended = [known for known, other in self._workers.items() if other.status.state in TERMINAL]
        self.forget_ended(ended[:-_KEEP_ENDED])

    async def _end_leftover(self, record: WorkerRecord) -> None:
        await end_leftover(record)
        await self._write(record.as_ended())

    async def _write(self, record: WorkerRecord) -> None:
        """Raises `Unavailable` where the disk does not take it."""
        async with self._journal_lock:
            with _disk_errors_told(record.worker_id):
                await asyncio.to_thread(self._journal.write, record)

    async def _renew(self, record: WorkerRecord) -> None:
        self._records[record.worker_id] = record
        await self._write_if_possible(record)

    async def _write_if_possible(self, record: WorkerRecord) -> None:
        """For what has happened already, on disk or not; the log says so if it is not."""
        try:
            await self._write(record)
        except Unavailable:
            return

    def _known(self, worker_id: str) -> Worker:
        worker = self._workers.get(worker_id)
        if worker is None:
            raise _unknown(worker_id)
        return worker

    def _one_at_a_time(self, worker_id: str) -> asyncio.Lock:
        lock = self._command_locks.get(worker_id)
        if lock is None:
            lock = self._command_locks[worker_id] = asyncio.Lock()
        return lock

    def _log_path(self, worker_id: str) -> Path:
        return self._rules.logs / f"{worker_id}.log"


@contextmanager
def _disk_errors_told(worker_id: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        log.error("worker_record_not_written", worker_id=worker_id, error=exc.strerror)
        raise Unavailable(Reason.STORE_FAILED, f"the node can't write to its data directory: {exc.strerror}") from exc


def _unknown(worker_id: str) -> NotFound:
    return NotFound(Reason.WORKER_NOT_FOUND, f'no worker "{worker_id}" on this node')
