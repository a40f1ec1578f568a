"""One process that reads the vocabulary of one model file, and what is said to it over a socket."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from llorch import lifeline
from llorch.errors import DeadlineExceeded, LlorchError, Reason, Unavailable
from llorch.rpc.status import error_from_details
from llorch.rpc.transport_options import MAX_MESSAGE_BYTES
from llorch.vocabulary_line import HEAD, Kind, Said, packed
from pool_managerd.workers.process import ChildProcess, ProcessEnd

# -P: the folder that the daemon was started in must not shadow a package.
VOCABULARY_PROGRAM = (sys.executable, "-P", "-m", "worker_orcd.read_vocabulary")
ANSWER_WITHIN_S = 22.0
"""The process ends itself before, unless it can't."""
_INHERITED = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_PATH")
_NO_LOG = Path(os.devnull)
"""What it writes might have parts of what was asked."""
_GONE_WITHIN_S = 2.0
_NONSENSE = "says nothing that can be read"
_SILENT = "does not answer any more"


class VocabularyProcess:
    """Takes one question at a time, until it has `ended`: by itself, or because a question failed."""

    def __init__(self, process: ChildProcess, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._is_given_up = False

    @classmethod
    async def start(cls, program: Sequence[str], engine: str, path: Path) -> "VocabularyProcess":
        """Returns before it has read the vocabulary. Raises OSError where the process can't be made."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                command = [*program, engine, str(path)]
                environment = {**vocabulary_environment(os.environ), **lifeline.with_parent()}
                process = ChildProcess.spawn(command, environment, _NO_LOG, theirs.fileno())
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            process.kill()
            raise
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._is_given_up or self._process.has_ended

    async def ask(self, question: bytes) -> bytes:
        """Raises what the process refuses the question for, or what ended it."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                said = await self._exchange(question)
        except TimeoutError:
            await self.close()
            raise _too_slow() from None
        except (OSError, EOFError):
            await self.close()
            raise (_ended_by(await self._process.wait()) if self._process.has_ended else _failed(_SILENT)) from None
        except ValueError:
            await self.close()
            raise _failed(_NONSENSE) from None
        except asyncio.CancelledError:
            self._kill()  # the answer to this question must not be taken for that to another
            raise
        if said.kind is Kind.ANSWER:
            return said.content
        if said.kind is Kind.FAILED:
            await self.close()
        raise error_from_details(said.content) or _failed(_NONSENSE)

    async def close(self) -> None:
        """Ends it, with whatever it is doing. One that hangs in the kernel, on a disk for example, ends later."""
        self._kill()
        await self._process.ended_within(_GONE_WITHIN_S)

    def _kill(self) -> None:
        self._is_given_up = True
        self._writer.close()
        self._process.kill()

    async def _exchange(self, question: bytes) -> Said:
        """Raises ValueError for an answer that is none: the process may be in the hands of a hostile file."""
        self._writer.write(packed(Said(Kind.QUESTION, question)))
        await self._writer.drain()
        kind, length = HEAD.unpack(await self._reader.readexactly(HEAD.size))
        if length > MAX_MESSAGE_BYTES:
            raise ValueError(length)
        return Said(Kind(kind), await self._reader.readexactly(length))


def vocabulary_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """No secrets, and no GPU: none is needed to make tokens."""
    return {name: inherited[name] for name in _INHERITED if name in inherited} | {"CUDA_VISIBLE_DEVICES": ""}


def _ended_by(end: ProcessEnd) -> LlorchError:
    if end.signal == signal.SIGALRM:
        return _too_slow()
    if end.signal is not None:
        return _failed(f"ended by {signal.Signals(end.signal).name}")
    return _failed(f"ended with code {end.exit_code}")


def _too_slow() -> LlorchError:
    return DeadlineExceeded(
        Reason.DEADLINE_PASSED, f"the vocabulary of the model was not read within {ANSWER_WITHIN_S:g} s; send less text"
    )


def _failed(how: str) -> LlorchError:
    return Unavailable(Reason.ENGINE_FAILED, f"the process that reads the model's vocabulary {how}")
