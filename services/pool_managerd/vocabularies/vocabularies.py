"""The vocabularies that this node has open: few, each for a while after it was used."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from llorch.clock import Clock
from llorch.errors import LlorchError, NotFound, Reason, ResourceExhausted, Unavailable
from llorch.file_identity import identity_of
from llorch.logs import get_logger
from pool_managerd.vocabularies.process import VOCABULARY_PROGRAM, VocabularyProcess

_log = get_logger(__name__)

MOST_OPEN = 4
"""Each takes up to a few hundred MiB."""
AT_ONCE = 2
"""Questions that are answered at the same time; more would take the processors from what runs."""
TURN_WITHIN_S = 5.0
KEPT_S = 600.0
_LOOK_EVERY_S = 30.0
_RETRY_MS = 1000

Key = tuple[str, str, tuple[int, ...]]
"""Engine, path, and what changes when the file does."""


@dataclass(slots=True)
class _Kept:
    process: VocabularyProcess
    used_at: float


class Vocabularies:
    """A file that was changed is another file, and its vocabulary opened anew. Questions about one file take turns, and
    only the one whose turn it is counts as answered at the same time as those about others. A turn lasts until there is
    an answer, whether its caller waits for it or not: one that is always in a hurry must not have files opened over and
    over.
    """

    def __init__(self, clock: Clock, program: Sequence[str] = VOCABULARY_PROGRAM) -> None:
        self._clock = clock
        self._program = program
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._turns: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self._opening = asyncio.Lock()
        self._kept: dict[Key, _Kept] = {}
        self._answering: dict[Key, asyncio.Task[bytes]] = {}

    @property
    def pids(self) -> set[int]:
        """Processes that are there."""
        return {kept.process.pid for kept in self._kept.values()}

    async def ask(self, engine: str, path: Path, question: bytes) -> bytes:
        """`question` and answer as in `llorch.vocabulary_line`. Raises ResourceExhausted where its turn does not come
        soon, and whatever the process refuses or fails with.
        """
        key = await asyncio.to_thread(_key_of, engine, path)
        turn = self._turns.setdefault(key, asyncio.Lock())
        await self._wait_turn(turn)
        work = asyncio.create_task(self._answered(key, question), name=f"vocabulary of {path.name}")
        self._answering[key] = work
        work.add_done_callback(lambda _: self._end_turn(key, turn, work))
        return await asyncio.shield(work)

    async def run(self) -> None:
        """Closes what has not been used for long."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            await self.close_unused(KEPT_S)

    async def close_unused(self, for_s: float) -> None:
        """Those that have not answered for so long."""
        async with self._opening:
            now = self._clock.monotonic()
            for key in [key for key in self._idle() if now - self._kept[key].used_at >= for_s]:
                await self._close(key)

    async def close(self) -> None:
        """All, in the midst of whatever they do."""
        answering = list(self._answering.values())
        for work in answering:
            work.cancel()
        await asyncio.gather(*answering, return_exceptions=True)
        for key in list(self._kept):
            await self._close(key)

    async def _wait_turn(self, turn: asyncio.Lock) -> None:
        try:
            async with asyncio.timeout(TURN_WITHIN_S):
                await turn.acquire()
                try:
                    await self._at_once.acquire()
                except BaseException:
                    turn.release()
                    raise
        except TimeoutError:
            raise ResourceExhausted(
                Reason.TOO_MANY_CALLS,
                "this node has too many questions about tokens to answer; try again shortly",
                retry_after_ms=_RETRY_MS,
            ) from None

    def _end_turn(self, key: Key, turn: asyncio.Lock, work: "asyncio.Task[bytes]") -> None:
        del self._answering[key]
        self._at_once.release()
        turn.release()
        if not work.cancelled():
            work.exception()  # marks it as retrieved: the caller may have left

    async def _answered(self, key: Key, question: bytes) -> bytes:
        kept = await self._opened(key)
        try:
            return await kept.process.ask(question)
        except LlorchError as error:
            if kept.process.ended:
                _log.warning("vocabulary_failed", engine=key[0], reason=error.reason, error=error.message)
            raise
        finally:
            kept.used_at = self._clock.monotonic()
            if kept.process.ended:
                await self._close(key)

    async def _opened(self, key: Key) -> _Kept:
        """Raises `Unavailable` where no process can be made."""
        async with self._opening:
            if (kept := self._kept.get(key)) and not kept.process.ended:
                return kept
            await self._close(key)
            if len(self._kept) >= MOST_OPEN:
                await self._close(min(self._idle(), key=lambda idle: self._kept[idle].used_at))
            engine, path, _ = key
            try:
                process = await VocabularyProcess.start(self._program, engine, Path(path))
            except OSError as error:
                raise Unavailable(
                    Reason.ENGINE_FAILED, f"the node can't start a process to read the vocabulary: {error.strerror}"
                ) from error
            kept = self._kept[key] = _Kept(process, self._clock.monotonic())
            return kept

    def _idle(self) -> list[Key]:
        return [key for key in self._kept if key not in self._answering]

    async def _close(self, key: Key) -> None:
        """It is forgotten only when its process is gone, so that a cancellation meanwhile leaves none behind."""
        if kept := self._kept.get(key):
            await kept.process.close()
            if self._kept.get(key) is kept:
                del self._kept[key]


def _key_of(engine: str, path: Path) -> Key:
    """On the disk. Raises `NotFound`."""
    try:
        status = path.stat()
    except OSError:
        raise NotFound(Reason.MODEL_FILE_MISSING, f"{path.name} is not there any more") from None
    return engine, str(path), tuple(identity_of(status).values())
