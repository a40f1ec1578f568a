"""One daemon as a child process."""

import asyncio
import contextlib
import signal
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Mapping
from pathlib import Path

from llorch.errors import FailedPrecondition, Reason, invalid_field
from llorch.system.log_lines_since import LogLines
from llorch.system.plan import DaemonPlan

_POLL_S = 0.02
_LAST_LINES = 8


class DaemonFailed(FailedPrecondition):
    """A daemon ended without being told to, or does not come up.

    The message is the last one that it printed, if any. `exit_code` is its exit code, minus the signal that ended it,
    or None if it still runs.
    """

    def __init__(
        self, name: str, exit_code: int | None, message: str, last_lines: tuple[str, ...], log_path: Path
    ) -> None:
        super().__init__(Reason.UPSTREAM_UNAVAILABLE, message)
        self.name = name
        self.exit_code = exit_code
        self.last_lines = last_lines
        self.log_path = log_path


class Daemon:
    """Made by `spawn`. Leads a session of its own, so that a terminal's Ctrl-C does not reach it."""

    def __init__(self, plan: DaemonPlan, process: Process, address_file: Path, log_path: Path, lines: LogLines) -> None:
        self.name = plan.name
        self.plan = plan
        self.pid = process.pid
        self.log_path = log_path
        self._process = process
        self._address_file = address_file
        self._lines = lines

    @classmethod
    async def spawn(cls, plan: DaemonPlan, environment: Mapping[str, str], data_dir: Path) -> "Daemon":
        """Appends to a log in `data_dir`/logs, which the daemon itself keeps short."""
        log_path = data_dir / "logs" / f"{plan.name}.log"
        address_file = data_dir / "run" / f"{plan.name}.address"
        _make_folders(log_path.parent, address_file.parent)
        address_file.unlink(missing_ok=True)
        with log_path.open("ab") as log:
            lines = LogLines(log_path, log.fileno())
            process = await asyncio.create_subprocess_exec(
                *plan.command,
                "--log-file",
                str(log_path),
                "--address-file",
                str(address_file),
                stdin=PIPE,
                stdout=log,
                stderr=STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
        return cls(plan, process, address_file, log_path, lines)

    async def wait_serving(self, timeout_s: float) -> str:
        """Its `host:port`. Raises DaemonFailed if it ends before it serves, or has not begun to in time."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not self._address_file.exists():
            if self._process.returncode is not None:
                raise self._ended(self._process.returncode)
            if asyncio.get_running_loop().time() > deadline:
                raise self._failed(f"{self.name} does not serve after {timeout_s:g} s", None)
            await asyncio.sleep(_POLL_S)
        return self._address_file.read_text().strip()

    async def wait_ended(self) -> DaemonFailed:
        return self._ended(await self._process.wait())

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _ended(self, code: int) -> DaemonFailed:
        said = self._last_word()
        if said is not None:
            return self._failed(self.plan.in_words_of_the_system(said), code)
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return self._failed(f"{self.name} ended {how}", code)

    def _failed(self, message: str, code: int | None) -> DaemonFailed:
        last_lines = tuple(self._lines.read()[-_LAST_LINES:])
        return DaemonFailed(self.name, code, message, last_lines=last_lines, log_path=self.log_path)

    def _last_word(self) -> str | None:
        """The message that a daemon prints when it refuses to start or gives up, line by line."""
        prefix = f"{self.name}: "
        told = [line.removeprefix(prefix) for line in self._lines.read() if line.startswith(prefix)]
        return "\n".join(told) or None


def _make_folders(*folders: Path) -> None:
    for folder in folders:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise invalid_field("data_dir", f"{folder} can't be made: {error.strerror}") from error
