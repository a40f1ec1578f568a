"""One worker from its acceptance to its end: the only writer of its status."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from llorch.clock import Clock
from llorch.errors import Reason
from llorch.logs import get_logger
from llorch.run_times import SILENT_FOR_S
from llorch.saved_sessions import SAVE_WITHIN_S
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from pool_managerd.models.reading import Reading
from pool_managerd.workers.adopted_process import AdoptedProcess
from pool_managerd.workers.command import Launch
from pool_managerd.workers.identity import ProcessIdentity
from pool_managerd.workers.lifecycle import WorkerEvent, after, may
from pool_managerd.workers.log_file import last_lines
from pool_managerd.workers.process import ChildProcess, ProcessEnd, RunningProcess
from pool_managerd.workers.stall import EngineSigns, StallWatch
from pool_managerd.workers.status import LAST_LINES, WorkerExit, WorkerStatus

_log = get_logger(__name__)

_SHUTDOWN_EXIT_S = 2.0  # a worker that answered Shutdown gets this long before SIGTERM
_CRASH_MEMORY_S = 0.5  # a crash is reported within 1 s, so its memory is not waited for any longer
_STOP_MEMORY_S = 10.0
_SAY_READY_S = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """It is ended if it is not ready so long after its start, or does nothing for so long although it has work."""

    load_deadline_s: float
    stall_s: float


class WorkerHost(Protocol):
    """What a worker needs from its surroundings."""

    def status_changed(self) -> None:
        """`status` is another one now."""
        ...

    async def note_started(self, worker_id: str, process: ProcessIdentity | None) -> None:
        """Its process exists. `process` None: it has ended already."""
        ...

    async def ask_shutdown(self, status: WorkerStatus, save_s: Mapping[str, float]) -> bool:
        """Whether the worker answered that it will end, after it has saved these sessions."""
        ...

    async def note_ended(self) -> None:
        """Its process has ended: what it left on the disk is counted before its end is told."""
        ...

    async def memory_back(self, pid: int, within_s: float) -> bool:
        """Waits until no device holds memory of this process, which has ended."""
        ...

    def count_failure(self, spec: WorkerSpec, ready_s: float) -> int:
        """How many workers like this one failed in a row, now that it did after having been ready for `ready_s`."""
        ...


class Worker:
    def __init__(self, status: WorkerStatus, log_path: Path, limits: Limits, host: WorkerHost, clock: Clock) -> None:
        self.status = status
        self.log_path = log_path
        self.process: RunningProcess | None = None
        self.ended = asyncio.Event()
        self._limits = limits
        self._host = host
        self._clock = clock
        self._stall = StallWatch(limits.stall_s)
        self._makes_tokens = False
        self._load_is_over = asyncio.Event()
        self._stop_asked = asyncio.Event()
        self._grace_s = 0.0
        self._save_s: Mapping[str, float] = {}
        self._ready_at: float | None = None
        self._failure: tuple[Reason, str] | None = None

    async def run(self, launch: Launch) -> None:
        """From exec to the end of the process. Cancelling it leaves the process alone."""
        if self._stop_asked.is_set():
            self._finish(WorkerEvent.ENDED_AS_TOLD, WorkerExit(message="stopped before its process was made"))
            return
        try:
            process = ChildProcess.spawn(launch.command, launch.environment, self.log_path)
        except OSError as error:
            self._fail_without_process(f"the worker process could not be started: {error.strerror}")
            return
        self.hold(process)
        await self._watch(process, self._limits.load_deadline_s)

    def hold(self, process: RunningProcess) -> None:
        """From here on it can be ended."""
        self.process = process
        self._change(pid=process.pid)

    async def run_adopted(self, process: AdoptedProcess) -> None:
        """As `run`, for a process of an earlier instance of the pool manager, which is held already.

        One that was ready is not asked how long it took; one that became so meanwhile has a moment to say it.
        """
        if self.status.ready_time is not None:
            self._load_is_over.set()
        await self._watch(process, max(_SAY_READY_S, self._limits.load_deadline_s - process.age_s))

    async def was_gone(self, *, as_told: bool) -> None:
        """It ended while no pool manager ran, so how it ended is unknown."""
        if as_told:
            self.stop(grace_s=0.0)
            self._finish(WorkerEvent.ENDED_AS_TOLD, WorkerExit())
        else:
            lines = await asyncio.to_thread(last_lines, self.log_path, LAST_LINES)
            self._fail_without_process("the worker ended while the pool manager of its node was away", lines)

    def became_ready(self, address: str, engine: bytes, memory_mib: tuple[int, ...]) -> None:
        """The worker reports that it is ready. Does nothing if the worker was told to stop before."""
        if not may(self.status.state, WorkerEvent.BECAME_READY):
            return
        self._load_is_over.set()
        self._ready_at = self._clock.monotonic()
        self._change(
            WorkerEvent.BECAME_READY,
            address=address,
            engine=engine,
            memory_mib=memory_mib,
            ready_time=self.status.ready_time or self._clock.wall(),
            load_progress=None,
        )
        self._warn_of_too_much_memory()

    def said_how_it_loads(self, progress: float | None) -> None:
        """Does not call `status_changed`: the next report has it."""
        if self.status.state is WorkerState.STARTING:
            self.status = replace(self.status, load_progress=progress)

    def was_read(self, reading: Reading) -> None:
        """Its model's files were read. Does not call `status_changed` either."""
        self.status = replace(self.status, reading=reading)

    def said_what_it_does(self, stats: bytes, signs: EngineSigns) -> None:
        """Calls `status_changed` only where tokens begin or cease to come, so that their rate is told at once, or where
        it had not answered.
        """
        did_not_answer = not self.status.answers
        self.status = replace(self.status, stats=stats, answers=True)
        if signs.makes_tokens != self._makes_tokens or did_not_answer:
            self._makes_tokens = signs.makes_tokens
            self._host.status_changed()
        self._end_if_stuck(signs)

    def said_nothing(self) -> None:
        """Calls `status_changed` once it has been silent for too long."""
        self._end_if_stuck(None)
        if self.status.answers and self._stall.silent_s >= SILENT_FOR_S:
            self.status = replace(self.status, answers=False)
            self._host.status_changed()

    def said_it_failed(self, reason: Reason, message: str) -> None:
        """The worker reports why it is about to end; its end follows."""
        self._failure = (reason, message)

    def stop(self, grace_s: float, save_s: Mapping[str, float] | None = None) -> None:
        """Begins the end; the last call's grace between SIGTERM and SIGKILL counts until SIGTERM was sent. `save_s` are
        the sessions that the worker saves before it ends, and for how many seconds, if it is not on its way already.
        """
        self._grace_s = grace_s
        if save_s and not self._stop_asked.is_set():
            self._save_s = save_s
        if may(self.status.state, WorkerEvent.STOP_ASKED):
            self._change(WorkerEvent.STOP_ASKED)
        self._load_is_over.set()
        self._stop_asked.set()

    def fail(self, reason: Reason, message: str) -> None:
        """Ends it at once for a failure, without asking it to end in order first."""
        _log.warning("worker_ended_for_cause", worker_id=self.status.spec.worker_id, reason=reason, why=message)
        self.said_it_failed(reason, message)
        if self.process is not None:
            self.process.kill()

    def kill(self) -> None:
        self.stop(grace_s=0.0)
        if self.process is not None:
            self.process.kill()

    async def _watch(self, process: RunningProcess, load_s: float) -> None:
        ender = asyncio.create_task(self._end_when_due(process, load_s), name=f"ender of {self.status.spec.worker_id}")
        try:
            await self._host.note_started(self.status.spec.worker_id, process.identity)
            await self._settle(process.pid, await process.wait())
        except asyncio.CancelledError:
            process.abandon()
            raise
        finally:
            ender.cancel()
            await asyncio.gather(ender, return_exceptions=True)

    async def _end_when_due(self, process: RunningProcess, load_s: float) -> None:
        await self._wait_end_is_due(load_s)
        if not self.status.answers:  # a process that is stopped takes no notice of SIGTERM either
            process.kill()
            return
        if await self._ends_by_itself(process):
            return
        process.terminate()
        if not await process.ended_within(self._grace_s):
            _log.warning("worker_killed", worker_id=self.status.spec.worker_id, after_s=self._grace_s)
            process.kill()

    async def _ends_by_itself(self, process: RunningProcess) -> bool:
        if not self.status.address or not await self._host.ask_shutdown(self.status, self._save_s):
            return False
        return await process.ended_within(min(_SHUTDOWN_EXIT_S, self._grace_s) + (SAVE_WITHIN_S if self._save_s else 0))

    async def _wait_end_is_due(self, load_s: float) -> None:
        try:
            async with asyncio.timeout(load_s):
                await self._load_is_over.wait()
        except TimeoutError:
            self.said_it_failed(Reason.MODEL_LOAD_FAILED, self._why_load_took_too_long())
            self.stop(grace_s=self._grace_s)
        await self._stop_asked.wait()

    def _why_load_took_too_long(self) -> str:
        progress = self.status.load_progress
        how_far = "" if progress is None else f" (it had come to {progress:.0%})"
        return f"it was not ready within {self._limits.load_deadline_s:.0f} s{how_far} and was ended"

    def _end_if_stuck(self, signs: EngineSigns | None) -> None:
        if self._failure is not None or self.status.state not in (WorkerState.READY, WorkerState.DRAINING):
            return
        problem = self._stall.look(signs, self._clock.monotonic())
        if problem is not None:
            self.fail(Reason.ENGINE_FAILED, f"the worker was ended: {problem}")

    async def _settle(self, pid: int, end: ProcessEnd) -> None:
        as_told = self._stop_asked.is_set() and self._failure is None
        lines = await asyncio.to_thread(last_lines, self.log_path, LAST_LINES)
        await self._host.note_ended()
        reason, message = (None, "") if as_told else self._why(end)
        waits_s = _STOP_MEMORY_S if as_told else _CRASH_MEMORY_S
        if not await self._host.memory_back(pid, waits_s):
            _log.warning("worker_memory_not_back", worker_id=self.status.spec.worker_id, pid=pid)
            message = f"{message or 'it ended'}; after {waits_s:g} s a device still counted memory of it"
        self._finish(
            WorkerEvent.ENDED_AS_TOLD if as_told else WorkerEvent.ENDED_BROKEN,
            WorkerExit(end.exit_code, end.signal, lines, reason, message),
        )

    def _why(self, end: ProcessEnd) -> tuple[Reason, str]:
        if self._failure is not None:
            return self._failure
        how = _in_words(end)
        if self.status.state is WorkerState.STARTING:
            return Reason.MODEL_LOAD_FAILED, f"the worker {how} while it loaded {self.status.spec.model}"
        return Reason.ENGINE_FAILED, f"the worker {how}"

    def _fail_without_process(self, message: str, lines: tuple[str, ...] = ()) -> None:
        reason = Reason.MODEL_LOAD_FAILED if self.status.ready_time is None else Reason.ENGINE_FAILED
        self._finish(WorkerEvent.ENDED_BROKEN, WorkerExit(last_lines=lines, reason=reason, message=message))

    def _finish(self, event: WorkerEvent, how: WorkerExit) -> None:
        as_told = event is WorkerEvent.ENDED_AS_TOLD
        failures = 0 if as_told else self._host.count_failure(self.status.spec, self._ready_s())
        if not as_told:
            _log.warning("worker_failed", worker_id=self.status.spec.worker_id, signal=how.signal, why=how.message)
        self._change(event, exit=replace(how, end_time=self._clock.wall(), failures_in_a_row=failures))
        self.ended.set()

    def _ready_s(self) -> float:
        """Seconds since this instance of the pool manager has known it as ready."""
        return 0.0 if self._ready_at is None else self._clock.monotonic() - self._ready_at

    def _change(self, event: WorkerEvent | None = None, **facts: object) -> None:
        state = self.status.state if event is None else after(self.status.state, event)
        if state is not self.status.state:
            _log.info("worker_state", worker_id=self.status.spec.worker_id, was=self.status.state, now=state)
        self.status = replace(self.status, state=state, **facts)  # type: ignore[arg-type]  # checked by replace
        self._host.status_changed()

    def _warn_of_too_much_memory(self) -> None:
        spec, held = self.status.spec, self.status.memory_mib
        for device_id, reserved, measured in zip(spec.device_ids, spec.reservation_mib, held, strict=False):
            if measured > reserved:
                _log.warning(
                    "worker_over_its_reservation",
                    worker_id=spec.worker_id,
                    device_id=device_id,
                    reserved_mib=reserved,
                    measured_mib=measured,
                )


def _in_words(end: ProcessEnd) -> str:
    if end.signal is not None:
        return f"ended by signal {end.signal}"
    if end.exit_code is not None:
        return f"exited with code {end.exit_code}"
    return "ended; how is not known, because it was started by an earlier life of the pool manager"
