"""One worker's process, watched until it ended."""

import asyncio
import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pool_managerd.workers.identity import ProcessIdentity, identify


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How the process ended, from the kernel: exactly one is set, or none where this process could not see it."""

    exit_code: int | None = None
    signal: int | None = None

    @classmethod
    def of_return_code(cls, code: int) -> "ProcessEnd":
        """`code` is the exit code, or minus the signal."""
        return cls(signal=-code) if code < 0 else cls(exit_code=code)


class RunningProcess(ABC):
    """Held by a descriptor (pidfd), which stays bound to this very process: signals reach it or no process, and its end
    is seen without a thread.
    """

    def __init__(self, pid: int, identity: ProcessIdentity | None, descriptor: int) -> None:
        """`identity` None: it has ended already."""
        self.pid = pid
        self.identity = identity
        self._descriptor = descriptor
        self._ended: asyncio.Future[ProcessEnd] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(descriptor, self._see_end)

    @property
    def has_ended(self) -> bool:
        return self._ended.done()

    async def wait(self) -> ProcessEnd:
        return await asyncio.shield(self._ended)

    async def ended_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.wait()
        except TimeoutError:
            return False
        return True

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def abandon(self) -> None:
        """Watches it no longer and leaves it running."""
        if not self._ended.done():
            self._ended.cancel()
            self._let_go()

    @abstractmethod
    def _how_it_ended(self) -> ProcessEnd:
        """Called once, when it has ended. Must not block."""

    def _send(self, number: signal.Signals) -> None:
        if not self._ended.done():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def _see_end(self) -> None:
        how = self._how_it_ended()
        self._let_go()
        self._ended.set_result(how)

    def _let_go(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)


class ChildProcess(RunningProcess):
    """A process that we are the parent of, started by exec in a session of its own.

    Not asyncio's own subprocess: that one kills the child when the event loop closes, and workers must be able to
    outlive the pool manager.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(process.pid, identify(process.pid), os.pidfd_open(process.pid))
        self._process = process

    @classmethod
    def spawn(
        cls, command: Sequence[str], environment: Mapping[str, str], log_path: Path, stdin: int = subprocess.DEVNULL
    ) -> "ChildProcess":
        """Raises OSError where the process can't be made.

        Blocks for a millisecond or two, on purpose: nothing can come between exec and our knowing of it.
        """
        process = _execute(command, environment, log_path, stdin)
        try:
            return cls(process)
        except OSError:  # it can't be watched (no descriptor is free), so it must not run
            process.kill()
            process.wait()
            raise

    def abandon(self) -> None:
        super().abandon()
        if self._process.returncode is None:
            self._process.returncode = 0  # or its destructor would complain about a child that still runs

    def _how_it_ended(self) -> ProcessEnd:
        return ProcessEnd.of_return_code(self._process.wait())  # it has ended, so this does not block


def _execute(
    command: Sequence[str], environment: Mapping[str, str], log_path: Path, stdin: int
) -> subprocess.Popen[bytes]:
    with log_path.open("ab") as log_file:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
        )
