"""Shows watchers the state, and again when it has changed, at a bounded rate."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from llorch.errors import LlorchError, Reason, ResourceExhausted
from orchestratord.core.effects import Effect
from orchestratord.core.events import Event, Tick
from orchestratord.runtime.brain_owner import BrainOwner

AT_MOST_EVERY_S = 0.1
AT_LEAST_EVERY_S = 1.0
"""What changes with the time alone comes with no event that is told of: a load that is given up, for example."""

MOST_WATCHERS = 256
MOST_ON_A_CONNECTION = 64
"""What has changed is written to all of them in one go, and all other calls wait for that. On a gateway's connection
only the first bound holds: the second would be for all of its clients together.
"""

_RETRY_MS = 1000


@dataclass(frozen=True, slots=True)
class Look:
    """At the state. A watcher is told only if `content` differs, in which there are no times."""

    content: object
    shown: bytes


class StateChanges:
    """Any number of watchers follow, up to a bound; the state is looked at once for all of them."""

    def __init__(self, owner: BrainOwner, look: Callable[[], Look]) -> None:
        self._look = look
        self._followers: set[asyncio.Event] = set()
        self._by_connection: Counter[str] = Counter()
        self._last = Look(None, b"")
        self._revision = 0
        self._told = 0
        self._looked_at = 0.0
        self._has_changed = True
        self._next: asyncio.TimerHandle | None = None
        owner.watch(self._happened)

    async def follow(self, connection: str | None) -> AsyncGenerator[bytes, None]:
        """Yields the state at once and then whenever it differs, until the watcher closes it.

        `connection` is None for one that clients share. Raises ResourceExhausted where there are too many watchers, or
        too many on their connection.
        """
        self._refuse_beyond_the_bounds(connection)
        wake = asyncio.Event()
        self._followers.add(wake)
        if connection is not None:
            self._by_connection[connection] += 1
        try:
            if self._has_changed or _now() - self._looked_at > AT_MOST_EVERY_S:
                self._look_now()
            if self._next is None:
                self._look_again(AT_LEAST_EVERY_S)
            while True:
                told = self._revision
                yield self._last.shown
                while self._revision == told:
                    wake.clear()
                    await wake.wait()
        finally:
            self._leave(wake, connection)

    def _refuse_beyond_the_bounds(self, connection: str | None) -> None:
        if connection is not None and self._by_connection[connection] >= MOST_ON_A_CONNECTION:
            message = f"this connection watches the state {MOST_ON_A_CONNECTION} times already; end some of its streams"
            raise ResourceExhausted(Reason.TOO_MANY_CALLS, message, retry_after_ms=_RETRY_MS)
        if len(self._followers) >= MOST_WATCHERS:
            message = f"{MOST_WATCHERS} streams watch the state already; try again when some of them have ended"
            raise ResourceExhausted(Reason.TOO_MANY_CALLS, message, retry_after_ms=_RETRY_MS)

    def _leave(self, wake: asyncio.Event, connection: str | None) -> None:
        self._followers.discard(wake)
        if connection is not None:
            self._by_connection[connection] -= 1
            if not self._by_connection[connection]:
                del self._by_connection[connection]
        if not self._followers and self._next is not None:
            self._next.cancel()
            self._next = None

    def _look_now(self) -> None:
        self._has_changed = False
        self._looked_at = _now()
        before, self._last = self._last, self._look()
        if self._last.content != before.content:
            self._revision += 1

    def _look_again(self, in_s: float) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = asyncio.get_running_loop().call_later(in_s, self._look_and_tell)

    def _look_and_tell(self) -> None:
        self._look_now()
        self._look_again(AT_LEAST_EVERY_S)
        if self._told != self._revision:
            self._told = self._revision
            for wake in self._followers:
                wake.set()

    def _happened(self, event: Event, _effects: Sequence[Effect], refusal: LlorchError | None, _asked: bool) -> None:
        """A tick by itself changes little; what it does change comes with effects."""
        if self._has_changed or refusal is not None or (isinstance(event, Tick) and not _effects):
            return
        self._has_changed = True
        if self._followers:
            self._look_again(max(0.0, self._looked_at + AT_MOST_EVERY_S - _now()))


def _now() -> float:
    return asyncio.get_running_loop().time()
