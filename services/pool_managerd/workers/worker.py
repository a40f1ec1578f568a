"""One worker from its acceptance to its end: the only writer of its status."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from llorch.clock import Clock
from llorch.errors import Reason
from llorch.logs import get_logger
from pool_managerd.workers.identity import ProcessIdentity
from pool_managerd.workers.lifecycle import WorkerEvent, WorkerState, after, may
from pool_managerd.workers.log_file import last_lines
from pool_managerd.workers.process import ProcessEnd, WorkerProcess
from pool_managerd.workers.status import LAST_LINES, WorkerExit, WorkerStatus

log = get_logger(__name__)

_SHUTDOWN_EXIT_S = 2.0  # a worker that answered Shutdown gets this long before SIGTERM
_CRASH_MEMORY_S = 0.5  # a crash is reported within 1 s, so its memory is not waited for any longer
_STOP_MEMORY_S = 10.0


@dataclass(frozen=True, slots=True)
class Launch:
    """How the process is made. `load_deadline_s`: it is ended if it is not ready by then."""

    command: Sequence[str]
    environment: Mapping[str, str]
    log_path: Path
    load_deadline_s: float


class WorkerHost(Protocol):
    """What a worker needs from its surroundings."""

    def status_changed(self) -> None:
        """`status` is another one now."""
        ...

    async def note_started(self, worker_id: str, process: ProcessIdentity | None) -> None:
        """Its process exists. `process` None: it has ended already."""
        ...

    async def ask_shutdown(self, status: WorkerStatus) -> bool:
        """Whether the worker answered that it will end."""
        ...

    async def memory_back(self, pid: int, within_s: float) -> bool:
        """Waits until no device holds memory of this process, which has ended."""
        ...


class Worker:
    def __init__(self, status: WorkerStatus, launch: Launch, host: WorkerHost, clock: Clock) -> None:
        self.status = status
        self.log_path = launch.log_path
        self.process: WorkerProcess | None = None
        self.ended = asyncio.Event()
        self._launch = launch
        self._host = host
        self._clock = clock
        self._load_is_over = asyncio.Event()
        self._stop_asked = asyncio.Event()
        self._grace_s = 0.0
        self._failure: tuple[Reason, str] | None = None

    async def run(self) -> None:
        """From exec to the end of the process. Cancelling it leaves the process alone."""
        if self._stop_asked.is_set():
            self._finish(WorkerEvent.ENDED_AS_TOLD, WorkerExit(message="stopped before its process was made"))
            return
        try:
            self.process = WorkerProcess.spawn(self._launch.command, self._launch.environment, self._launch.log_path)
        except OSError as exc:
            self._never_ran(exc)
            return
        self._change(pid=self.process.pid)
        ender = asyncio.create_task(self._end_when_due(self.process), name=f"ender of {self.status.spec.worker_id}")
        try:
            await self._host.note_started(self.status.spec.worker_id, self.process.identity)
            await self._settle(self.process.pid, await self.process.wait())
        except asyncio.CancelledError:
            self.process.abandon()
            raise
        finally:
            ender.cancel()
            await asyncio.gather(ender, return_exceptions=True)

    def became_ready(self, address: str, engine: bytes, memory_mib: tuple[int, ...]) -> None:
        """The worker says so itself. Too late if it was told to stop; then nothing happens."""
        if not may(self.status.state, WorkerEvent.BECAME_READY):
            return
        self._load_is_over.set()
        self._change(
            WorkerEvent.BECAME_READY,
            address=address,
            engine=engine,
            memory_mib=memory_mib,
            ready_time=self._clock.wall(),
        )

    def said_what_it_does(self, stats: bytes) -> None:
        """Tells nobody: there is time until somebody looks."""
        self.status = replace(self.status, stats=stats)

    def said_it_failed(self, reason: Reason, message: str) -> None:
        """Why it is about to end, in its own words; its end follows."""
        self._failure = (reason, message)

    def stop(self, grace_s: float) -> None:
        """Begins the end; the last call's grace between SIGTERM and SIGKILL counts until SIGTERM was sent."""
        self._grace_s = grace_s
        if may(self.status.state, WorkerEvent.STOP_ASKED):
            self._change(WorkerEvent.STOP_ASKED)
        self._load_is_over.set()
        self._stop_asked.set()

    def kill(self) -> None:
        self.stop(grace_s=0.0)
        if self.process is not None and not self.ended.is_set():
            self.process.kill()

    async def _end_when_due(self, process: WorkerProcess) -> None:
        await self._wait_end_is_due()
        if await self._ends_by_itself(process):
            return
        process.terminate()
        if not await process.ended_within(self._grace_s):
            log.warning("worker_killed", worker_id=self.status.spec.worker_id, after_s=self._grace_s)
            process.kill()

    async def _ends_by_itself(self, process: WorkerProcess) -> bool:
        if not self.status.address or not await self._host.ask_shutdown(self.status):
            return False
        return await process.ended_within(min(_SHUTDOWN_EXIT_S, self._grace_s))

    async def _wait_end_is_due(self) -> None:
        try:
            async with asyncio.timeout(self._launch.load_deadline_s):
                await self._load_is_over.wait()
        except TimeoutError:
            seconds = round(self._launch.load_deadline_s)
            self.said_it_failed(Reason.MODEL_LOAD_FAILED, f"it was not ready within {seconds} s and was ended")
            self.stop(grace_s=self._grace_s)
        await self._stop_asked.wait()

    async def _settle(self, pid: int, end: ProcessEnd) -> None:
        as_told = self._stop_asked.is_set() and self._failure is None
        lines = await asyncio.to_thread(last_lines, self._launch.log_path, LAST_LINES)
        reason, message = (None, "") if as_told else self._why(end)
        if not await self._host.memory_back(pid, _STOP_MEMORY_S if as_told else _CRASH_MEMORY_S):
            log.warning("worker_memory_not_back", worker_id=self.status.spec.worker_id, pid=pid)
        self._finish(
            WorkerEvent.ENDED_AS_TOLD if as_told else WorkerEvent.ENDED_BROKEN,
            WorkerExit(end.exit_code, end.signal, lines, reason, message),
        )

    def _why(self, end: ProcessEnd) -> tuple[Reason, str]:
        if self._failure is not None:
            return self._failure
        how = f"ended by signal {end.signal}" if end.signal is not None else f"exited with code {end.exit_code}"
        if self.status.state is WorkerState.STARTING:
            return Reason.MODEL_LOAD_FAILED, f"the worker {how} while it loaded {self.status.spec.model}"
        return Reason.ENGINE_FAILED, f"the worker {how}"

    def _never_ran(self, exc: OSError) -> None:
        message = f"the worker process could not be started: {exc.strerror}"
        self._finish(WorkerEvent.ENDED_BROKEN, WorkerExit(reason=Reason.MODEL_LOAD_FAILED, message=message))

    def _finish(self, event: WorkerEvent, how: WorkerExit) -> None:
        self._change(event, exit=how)
        self.ended.set()

    def _change(self, event: WorkerEvent | None = None, **facts: object) -> None:
        state = self.status.state if event is None else after(self.status.state, event)
        if state is not self.status.state:
            log.info("worker_state", worker_id=self.status.spec.worker_id, was=self.status.state, now=state)
        self.status = replace(self.status, state=state, **facts)  # type: ignore[arg-type]  # checked by replace
        self._host.status_changed()
