"""Requests that only read, and whose answers have not begun: how many there may be, and whose is the next."""

from typing import Protocol

from gatewayd.http import limits
from gatewayd.http.turns import Turns


class Reader(Protocol):
    """A connection that waits to begin a further one."""

    def begin_next(self) -> None: ...


class Reads:
    """Of all connections. Each may always have one; the further ones begin where there are few, of one connection after
    the other.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._count = 0
        self._waiting: dict[Reader, None] = {}
        self._asks = False

    def may_begin(self, of_its_own: int) -> bool:
        """A connection that has so many already."""
        if not of_its_own:
            return True
        return of_its_own < limits.READS_OF_ONE and self._count < limits.READS_OF_ALL

    def wait(self, reader: Reader, of_its_own: int) -> None:
        """Until its `begin_next` is called. One that has as many as it may looks again when one of them is over."""
        if 0 < of_its_own < limits.READS_OF_ONE:
            self._waiting[reader] = None

    def begin(self) -> None:
        self._count += 1

    def end(self) -> None:
        """Its answer begins, or it is over without one, or it takes longer than a read does."""
        self._count -= 1
        if self._waiting and not self._asks:
            self._asks = True
            self._turns.ask(self)

    def take_step(self) -> bool:
        """The connection that has waited longest begins one."""
        if self._has_next:
            reader = next(iter(self._waiting))
            del self._waiting[reader]
            reader.begin_next()
        self._asks = self._has_next
        return self._asks

    @property
    def _has_next(self) -> bool:
        return bool(self._waiting) and self._count < limits.READS_OF_ALL
