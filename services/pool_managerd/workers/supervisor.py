"""The one owner of this node's workers: starts and ends them as told, idempotently by worker id."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

from llorch.background import TaskSupervisor
from llorch.clock import Clock
from llorch.errors import AlreadyExists, FailedPrecondition, LlorchError, NotFound, Reason, Unavailable
from llorch.identifiers import secret_token
from llorch.logs import get_logger
from llorch.ports import join_address, split_address
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import TERMINAL, WorkerState
from pool_managerd.devices.device import Device, OwnUse
from pool_managerd.models.located_model import LocatedModel
from pool_managerd.models.reading import Reading
from pool_managerd.workers.adopted_process import find_living
from pool_managerd.workers.command import EngineChoice, Launch, choose_engine
from pool_managerd.workers.failures import FailureCount
from pool_managerd.workers.identity import ProcessIdentity
from pool_managerd.workers.journal import Journal, Stage, WorkerRecord
from pool_managerd.workers.log_file import forget_oldest_logs
from pool_managerd.workers.ports import PortChooser
from pool_managerd.workers.records import WorkerRecords, disk_errors_told
from pool_managerd.workers.rules import WorkerRules
from pool_managerd.workers.stall import EngineSigns
from pool_managerd.workers.status import AdoptAnswer, WorkerStatus
from pool_managerd.workers.worker import Limits, Worker

_log = get_logger(__name__)

_KEEP_ENDED = 200  # statuses of ended workers that the orchestrator has not acknowledged
_RETRY_MS = 1000
_CLOSE_BEYOND_GRACE_S = 3.0


async def _nothing() -> None: ...


class NodeDevices(Protocol):
    @property
    def by_id(self) -> Mapping[str, Device]: ...

    async def memory_back(self, pid: int, within_s: float) -> bool: ...


class WorkerCalls(Protocol):
    """Calls to workers: `address` is where one listens."""

    async def shut_down(self, address: str, access_token: str, save_s: Mapping[str, float]) -> bool:
        """Whether it answered that it will end, after it has saved these sessions, each for so many seconds."""
        ...

    async def adopt(self, address: str, access_token: str, ready_address: str) -> AdoptAnswer | None:
        """Tells it where this pool manager is. None where it does not answer."""
        ...


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
        calls: WorkerCalls,
        changed: Callable[[], None],
        tasks: TaskSupervisor,
        clock: Clock,
        read_ahead: Callable[[LocatedModel], None] = lambda _: None,
        when_ended: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        self._rules = rules
        self._records = WorkerRecords(journal)
        self._devices = devices
        self._find_model = find_model
        self._read_ahead = read_ahead
        self._when_ended = when_ended
        self._calls = calls
        self._ports = PortChooser(rules.ports)
        self._failures = FailureCount()
        self.status_changed = changed
        self._tasks = tasks
        self._clock = clock
        self._workers: dict[str, Worker] = {}
        self._lives: set[asyncio.Task[None]] = set()
        self._command_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._is_open = False
        self._is_complete = False
        self._ready_address = ""
        self._advertise_host = ""

    async def recall(self) -> None:
        """Reads what earlier instances of this pool manager started, so that their workers are known when they call."""
        await self._records.recall()
        await self._forget_oldest_logs()

    async def open(self, *, ready_address: str, advertise_host: str) -> None:
        """Takes back the workers that earlier instances left; commands are taken from then on.

        Workers report to `ready_address`; the orchestrator finds them at `advertise_host`.
        """
        self._ready_address = ready_address
        self._advertise_host = advertise_host
        await asyncio.gather(*(self._take_back(record) for record in self._records.living))
        self._is_complete = self._is_open = True

    async def start(self, spec: WorkerSpec) -> WorkerStatus:
        """Returns once the start is on disk; the process follows.

        Raises what makes it impossible (device, model file), and `AlreadyExists` for an id that stands for
        something else.
        """
        if not self._is_open:
            raise _not_open()
        async with self._one_at_a_time(spec.worker_id):
            known = self._workers.get(spec.worker_id)
            if known is not None and known.status.spec == spec:
                return known.status
            if known is not None or self._records.is_used(spec.worker_id):
                raise AlreadyExists(
                    Reason.WORKER_ID_USED, f'the worker id "{spec.worker_id}" was used before; choose a new one'
                )
            choice = choose_engine(spec, self._devices.by_id, self._rules.policy)
            model = await self._find_model(spec.source)
            worker, launch = await self._accept(spec, choice, model)
            self._read_ahead(model)  # the disk begins while the process is still being made
        if not self._is_open:  # `close` began while the disk was busy, and did not see this worker
            worker.kill()
        self._begin_life(worker, worker.run(launch))
        return worker.status

    async def stop(self, worker_id: str, save_s: Mapping[str, float] | None = None) -> WorkerState:
        """Returns once the stop has begun. An unknown id becomes a used one. `save_s` are sessions that the worker
        saves before it ends, each for so many seconds.
        """
        async with self._one_at_a_time(worker_id):
            worker = self._workers.get(worker_id)
            if worker is not None:
                worker.stop(self._rules.stop_grace_s, save_s if self._rules.policy.saved is not None else None)
                state = worker.status.state
                await self._records.renew(worker_id, stage=Stage.STOPPING)
                return state
            await self._records.refuse(worker_id)
            return WorkerState.EXITED

    async def report_ready(self, worker_id: str, address: str, engine: bytes, memory_mib: tuple[int, ...]) -> None:
        """The worker calls this when it is ready, and every few seconds from then on."""
        worker = self._known(worker_id)
        worker.became_ready(self._advertised(address), engine, memory_mib)
        if worker.status.state is WorkerState.READY:
            await self._records.renew(worker_id, address=address, ready_time=worker.status.ready_time)

    async def report_loading(self, worker_id: str, address: str, progress: float | None) -> None:
        """The worker calls this every few seconds until it is ready."""
        self._known(worker_id).said_how_it_loads(progress)
        if address:
            await self._records.renew(worker_id, address=address)

    def report_failed(self, worker_id: str, reason: Reason, message: str) -> None:
        self._known(worker_id).said_it_failed(reason, message)

    def note_stats(self, worker_id: str, stats: bytes, signs: EngineSigns) -> None:
        worker = self._workers.get(worker_id)
        if worker is not None and worker.status.state is WorkerState.READY:
            worker.said_what_it_does(stats, signs)

    def note_reading(self, source: str, reading: Reading) -> None:
        """The files of this reference were read ahead, for the workers that start with it."""
        for worker in self._workers.values():
            if worker.status.spec.source == source and worker.status.reading is None:
                worker.was_read(reading)

    def note_silence(self, worker_id: str) -> None:
        """The worker did not answer when it was asked for its stats."""
        worker = self._workers.get(worker_id)
        if worker is not None:
            worker.said_nothing()

    def worker_by_ready_token(self, token: str) -> str | None:
        return self._records.worker_by_ready_token(token)

    def require_complete(self) -> None:
        """Raises `Unavailable` while workers of earlier instances are taken back: a missing worker counts as gone."""
        if not self._is_complete:
            raise _not_open()

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
        path = self._rules.log_path(worker_id)
        if not path.is_file():
            raise _unknown(worker_id)
        ended = asyncio.Event()
        ended.set()
        return path, ended

    def forget_ended(self, worker_ids: Iterable[str]) -> None:
        """The orchestrator has acknowledged their end; the ids stay used."""
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
            _log.error("workers_did_not_end", workers=[life.get_name() for life in left])

    def leave(self) -> None:
        """Starts nothing any more; workers go on without this pool manager, and the next one takes them back."""
        self._is_open = False

    def kill_all(self) -> None:
        """Kills every worker at once, without telling it before."""
        for worker in self._workers.values():
            worker.kill()

    def uses(self, source: str) -> bool:
        """Whether a worker that has not ended has this model's file open."""
        return any(status.spec.source == source and status.state not in TERMINAL for status in self.statuses())

    async def note_started(self, worker_id: str, process: ProcessIdentity | None) -> None:
        await self._records.renew(worker_id, process=process)

    async def note_ended(self) -> None:
        await self._when_ended()

    async def ask_shutdown(self, status: WorkerStatus, save_s: Mapping[str, float]) -> bool:
        return await self._calls.shut_down(status.address, status.access_token, save_s)

    def count_failure(self, spec: WorkerSpec, ready_s: float) -> int:
        return self._failures.failed(spec, ready_s)

    async def memory_back(self, pid: int, within_s: float) -> bool:
        return await self._devices.memory_back(pid, within_s)

    async def _accept(self, spec: WorkerSpec, choice: EngineChoice, model: LocatedModel) -> tuple[Worker, Launch]:
        port = self._ports.choose(self._rules.bind_host, self._records.ports())
        record = WorkerRecord(
            spec.worker_id,
            Stage.INTENDED,
            spec,
            access_token=secret_token(),
            ready_token=secret_token(),
            address=join_address(self._rules.bind_host, port) if port else "",
            load_deadline_s=self._rules.load_deadline_s(model),
            stall_s=self._rules.stall_limit_s(choice),
            start_time=self._clock.wall(),
        )
        with disk_errors_told(spec.worker_id):
            self._rules.log_path(spec.worker_id).touch(mode=0o600)
        await self._records.intend(record)
        worker = self._workers[spec.worker_id] = self._worker_of(record, spec)
        return worker, self._rules.launch(record, spec, choice, model, self._ready_address)

    def _worker_of(self, record: WorkerRecord, spec: WorkerSpec) -> Worker:
        status = WorkerStatus(
            spec,
            WorkerState.STARTING,
            start_time=record.start_time or self._clock.wall(),
            access_token=record.access_token,
            ready_time=record.ready_time,
        )
        limits = Limits(record.load_deadline_s, record.stall_s)
        return Worker(status, self._rules.log_path(spec.worker_id), limits, self, self._clock)

    def _begin_life(self, worker: Worker, life: Coroutine[None, None, None]) -> None:
        task = self._tasks.spawn(f"worker {worker.status.spec.worker_id}", self._live(worker, life))
        self._lives.add(task)
        task.add_done_callback(self._lives.discard)
        self.status_changed()

    async def _live(self, worker: Worker, life: Coroutine[None, None, None]) -> None:
        await life
        await self._records.end(worker.status.spec.worker_id)
        await self._forget_oldest_logs()
        ended = [known for known, other in self._workers.items() if other.status.state in TERMINAL]
        self.forget_ended(ended[:-_KEEP_ENDED])

    async def _forget_oldest_logs(self) -> None:
        living = {record.worker_id for record in self._records.living}
        try:
            await asyncio.to_thread(forget_oldest_logs, self._rules.logs, living)
        except OSError as error:
            _log.warning("old_logs_not_removed", error=error.strerror)

    async def _take_back(self, record: WorkerRecord) -> None:
        """Adopts living processes that are proven to be ours; ends those that can't go on; reports the end of others.

        A worker whose process was never made is not told of: it has not failed, and may be started under another id.
        """
        assert record.spec is not None  # a start is recorded with it
        process = await find_living(record)
        if process is None and record.stage is Stage.INTENDED:
            await self._records.end(record.worker_id)
            return
        worker = self._workers[record.worker_id] = self._worker_of(record, record.spec)
        if process is None:
            _log.info("worker_gone_meanwhile", worker_id=record.worker_id)
            await worker.was_gone(as_told=record.stage is Stage.STOPPING)
            await self._records.end(record.worker_id)
            return
        worker.hold(process)
        self._begin_life(worker, worker.run_adopted(process))
        if record.stage is Stage.STOPPING:
            worker.stop(self._rules.stop_grace_s)
        elif problem := self._why_not_here(record.spec):
            worker.fail(problem.reason, f"the worker was ended: {problem.message}")
        else:
            await self._reach(worker, record)

    def _why_not_here(self, spec: WorkerSpec) -> LlorchError | None:
        """Why the present settings forbid this worker, or None; a device that fails is no such reason."""
        try:
            choose_engine(spec, self._devices.by_id, self._rules.policy)
        except FailedPrecondition:
            return None
        except LlorchError as error:
            return error
        return None

    async def _reach(self, worker: Worker, record: WorkerRecord) -> None:
        """A worker that loads may not listen yet; it will report, or its deadline ends it."""
        answer = None
        if record.address:
            answer = await self._calls.adopt(record.address, record.access_token, self._ready_address)
        is_it = answer is not None and answer.worker_id == record.worker_id
        _log.info("worker_adopted", worker_id=record.worker_id, pid=worker.status.pid, answered=is_it)
        if answer is not None and is_it and answer.engine:
            worker.became_ready(self._advertised(record.address), answer.engine, answer.memory_mib)
        elif not is_it and record.ready_time is not None:
            worker.fail(Reason.ENGINE_FAILED, "the worker was ended: it did not answer the restarted pool manager")

    def _advertised(self, address: str) -> str:
        return join_address(self._advertise_host, split_address(address)[1])

    def _known(self, worker_id: str) -> Worker:
        worker = self._workers.get(worker_id)
        if worker is not None:
            return worker
        if not self._is_open:  # it may be one of those that are being taken back
            raise _not_open()
        raise _unknown(worker_id)

    def _one_at_a_time(self, worker_id: str) -> asyncio.Lock:
        lock = self._command_locks.get(worker_id)
        if lock is None:
            lock = self._command_locks[worker_id] = asyncio.Lock()
        return lock


def _not_open() -> Unavailable:
    return Unavailable(Reason.DRAINING, "this pool manager is just starting or ending", retry_after_ms=_RETRY_MS)


def _unknown(worker_id: str) -> NotFound:
    return NotFound(Reason.WORKER_NOT_FOUND, f'no worker "{worker_id}" on this node')
