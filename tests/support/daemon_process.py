"""A daemon as a process of its own, which a test may kill, pause and start again."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from support.free_ports import free_port

ENDS_WITHIN_S = 10.0


@dataclass
class DaemonProcess:
    """`start` and `kill` may come again and again; the address and the folder stay the same.

    `flags` go before the usual ones; None leaves out a flag that is given otherwise.
    """

    module: ClassVar[str]
    folder: Path
    flags: dict[str, object] = field(default_factory=dict, kw_only=True)
    environment: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    prefix: tuple[str, ...] = field(default=(), kw_only=True)
    """What goes before the command, and becomes it."""
    process: Process | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.address = f"127.0.0.1:{free_port()}"

    def usual_flags(self) -> Mapping[str, object]:
        return {}

    async def start(self) -> None:
        """Returns at once, before it serves."""
        given = {"bind": self.address, **self.usual_flags(), **self.flags}
        arguments = [part for name, value in given.items() for part in _flag(name, value)]
        with self._log_file.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(*self.prefix, sys.executable, "-m", self.module, *arguments),
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int:
        assert self.process is not None
        self.process.terminate()
        async with asyncio.timeout(ENDS_WITHIN_S):
            return await self.process.wait()

    async def end(self) -> None:
        """Kills it if it runs."""
        if self.process is not None and self.process.returncode is None:
            await self.kill()

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def check_runs(self) -> None:
        assert self.process is not None
        assert self.process.returncode is None, f"{self.module} ended:\n{self.log()[-3000:]}"

    def log(self) -> str:
        return self._log_file.read_text()

    @property
    def _log_file(self) -> Path:
        return self.folder / f"{self.module.replace('_', '-')}.log"


def _flag(name: str, value: object) -> tuple[str, ...]:
    """A tuple gives its flag once for each value in it."""
    if value is None:
        return ()
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, tuple):
        return tuple(part for each in value for part in (flag, str(each)))
    if value is False:
        return (f"--no-{flag[2:]}",)
    return (flag,) if value is True else (flag, str(value))
