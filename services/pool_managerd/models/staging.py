"""A model on its way to this node: one staging for all callers that ask for it, and each of them gets its progress."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from llorch.errors import Internal, LlorchError, Reason, Unavailable
from llorch.logs import get_logger
from pool_managerd.models.download.progress import Progress
from pool_managerd.models.located_model import LocatedModel

_log = get_logger(__name__)

_TELL_EVERY_S = 0.5
_ALONE_S = 30.0

Bring = Callable[[Callable[[Progress], None]], Awaitable[LocatedModel]]


class Staging:
    """`model` once it is here, `failure` if it does not come. A staging that no caller follows any more ends after a
    while; the next one for the same reference resumes its download.
    """

    def __init__(self, reference: str, *, alone_s: float = _ALONE_S) -> None:
        self.reference = reference
        self.progress = Progress()
        self.model: LocatedModel | None = None
        self.failure: LlorchError | None = None
        self._alone_s = alone_s
        self._followers = 0
        self._over = asyncio.Event()
        self._give_up: asyncio.TimerHandle | None = None
        self._work: asyncio.Task[None] | None = None

    async def run(self, bring: Bring) -> None:
        """Never raises: callers of `follow` and `wait` get the failure; it must not end other tasks of the daemon."""
        self._work = asyncio.current_task()
        self._watch_for_loneliness()
        try:
            self.model = await bring(self._note)
        except LlorchError as error:
            self.failure = error
            _log.warning("staging_failed", source=self.reference, reason=error.reason, why=error.message)
        except OSError as error:
            _log.error("staging_failed", source=self.reference, error=repr(error))
            self.failure = Unavailable(Reason.STORE_FAILED, f"the node can't write the file: {error.strerror}")
        except Exception as error:  # noqa: BLE001 - its followers get the failure; the daemon keeps running
            _log.exception("staging_failed", source=self.reference, error=repr(error))
            self.failure = Internal(Reason.INTERNAL, "the file could not be brought; the pool manager's log says why")
        finally:
            self._end()

    async def follow(self) -> AsyncGenerator[Progress, None]:
        """Yields its progress now and then until it is over; raises its failure. A quick one yields nothing. The caller
        has to close the generator.
        """
        self._followers += 1
        self._watch_for_loneliness()
        try:
            while not self._over.is_set():
                await self._wait_news()
                if not self._over.is_set():
                    yield self.progress
            if self.failure is not None:
                raise self.failure
        finally:
            self._followers -= 1
            self._watch_for_loneliness()

    async def wait(self) -> LocatedModel:
        """The model; raises the failure."""
        async for _ in self.follow():
            pass
        if self.model is None:
            raise self.failure or _given_up(self.reference)
        return self.model

    def _note(self, progress: Progress) -> None:
        self.progress = progress

    async def _wait_news(self) -> None:
        """Returns at the end, or after a while: `follow` yields then too, so that clients see the call is alive."""
        try:
            async with asyncio.timeout(_TELL_EVERY_S):
                await self._over.wait()
        except TimeoutError:
            return

    def _watch_for_loneliness(self) -> None:
        if self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None
        if not self._followers and not self._over.is_set() and self._work is not None:
            self._give_up = asyncio.get_running_loop().call_later(self._alone_s, self._work.cancel)

    def _end(self) -> None:
        if self.model is None and self.failure is None:
            self.failure = _given_up(self.reference)
        self._over.set()
        self._watch_for_loneliness()


def _given_up(reference: str) -> LlorchError:
    return Unavailable(Reason.CANCELLED, f"no caller waited for {reference} any more; ask again to go on with it")
