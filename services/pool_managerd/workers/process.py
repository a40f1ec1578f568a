"""One child process: started by exec in a session of its own, watched until it ended."""

import asyncio
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pool_managerd.workers.identity import ProcessIdentity, identify


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How the kernel says that it ended; exactly one is set."""

    exit_code: int | None = None
    signal: int | None = None


class WorkerProcess:
    """A process that we are the parent of: its id stays its own until its end was collected here.

    Not asyncio's own subprocess: that one kills the child when the event loop closes, and workers must be able
    to outlive the pool manager. The end is seen through a descriptor of the process (pidfd), without a thread.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._ended: asyncio.Future[ProcessEnd] = asyncio.get_running_loop().create_future()
        self._watch = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._watch, self._collect)
        self.pid = process.pid
        self.identity: ProcessIdentity | None = identify(process.pid)  # None: it has ended already

    @classmethod
    def spawn(cls, command: Sequence[str], environment: Mapping[str, str], log_path: Path) -> "WorkerProcess":
        """Raises OSError where the process can't be made.

        Blocks for a millisecond or two, on purpose: nothing can come between exec and our knowing of it.
        """
        process = _execute(command, environment, log_path)
        try:
            return cls(process)
        except OSError:  # it can't be watched (no descriptor is free), so it must not run
            process.kill()
            process.wait()
            raise

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
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def abandon(self) -> None:
        """Watches it no longer and leaves it running."""
        if self._ended.done():
            return
        self._ended.cancel()
        self._stop_watching()
        self._process.returncode = 0  # or its destructor would complain about a child that still runs

    def _collect(self) -> None:
        code = self._process.wait()  # it has ended, so this does not block
        self._stop_watching()
        self._ended.set_result(ProcessEnd(signal=-code) if code < 0 else ProcessEnd(exit_code=code))

    def _stop_watching(self) -> None:
        asyncio.get_running_loop().remove_reader(self._watch)
        os.close(self._watch)


def _execute(command: Sequence[str], environment: Mapping[str, str], log_path: Path) -> subprocess.Popen[bytes]:
    with log_path.open("ab") as log_file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
        )
