"""`llorch up` as a user runs it."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from support import living_processes

ENDS_WITHIN_S = 5.0
"""A promise."""

SAYS_WITHIN_S = 120.0
"""No promise: beside a busy process, a start takes many times as long."""


@dataclass
class Up:
    process: Process
    output: str = ""

    async def read_until(self, pattern: str) -> re.Match[str]:
        assert self.process.stdout is not None
        async with asyncio.timeout(SAYS_WITHIN_S):
            while (found := re.search(pattern, self.output)) is None:
                line = await self.process.stdout.readline()
                assert line, f"it ended without saying {pattern!r}:\n{self.output}"
                self.output += line.decode()
        return found

    async def ready(self) -> str:
        """The gRPC address."""
        await self.read_until("Ctrl-C ends everything")
        return (await self.read_until(r"gRPC +(\S+)")).group(1)

    async def end(self) -> int:
        """Waits for its end, which may not take longer than promised."""
        assert self.process.stdout is not None
        async with asyncio.timeout(ENDS_WITHIN_S):
            self.output += (await self.process.stdout.read()).decode()
            return await self.process.wait()

    def family(self) -> dict[str, psutil.Process]:
        """What runs below it, by program name."""
        found = living_processes.below(psutil.Process(self.process.pid))
        return {_program(command): process for process, command in found}


def _program(command: Sequence[str]) -> str:
    return next((name for name in command if re.fullmatch(r"\w+(d|_orcd)", name)), "")


async def start(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Up:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "llorch",
        "up",
        "--any-ports",
        "--data-dir",
        str(folder),
        *arguments,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
    )
    return Up(process)


@asynccontextmanager
async def running_up(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Up]:
    """Killed at the end if it still runs; a test that wants it to end in order calls `end`."""
    up = await start(folder, *arguments, env=env)
    try:
        yield up
    finally:
        if up.process.returncode is None:
            up.process.kill()
            await up.process.wait()
