"""Requests that only read, and whose answers have not begun: how many there may be, and whose is the next."""

from typing import Protocol

from gatewayd.http import limits
from gatewayd.http.turns import Turns


class Reader(Protocol):
    """A connection."""

    @property
    def counted_reads(self) -> int:
        """Those that are among the reads of all connections."""
        ...

    @property
    def all_reads(self) -> int:
        """With those that have taken too long to count."""
        ...

    def begin_next(self) -> None:
        """The read that waited, if it is still wanted."""
        ...


class Reads:
    """Of all connections. Each may always have one that counts; further ones begin where there are few, and of one
    connection after the other.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._count = 0
        self._waiting: dict[Reader, None] = {}
        self._next: Reader | None = None
        """May begin one though others wait."""
        self._asks = False

    def may_begin(self, reader: Reader) -> bool:
        if reader.all_reads >= limits.READS_OF_ONE:
            return False
        if not reader.counted_reads:
            return True
        return self._count < limits.READS_OF_ALL and (not self._waiting or reader is self._next)

    def wait(self, reader: Reader) -> None:
        """Until its `begin_next` is called. One that has as many as it may looks again when one of them is over."""
        if reader.all_reads < limits.READS_OF_ONE:
            self._waiting[reader] = None

    def forget(self, reader: Reader) -> None:
        """It waits no more."""
        self._waiting.pop(reader, None)

    def begin(self) -> None:
        self._count += 1
        self._next = None

    def end(self) -> None:
        """Its answer begins, or it is over without one, or it takes longer than a read does."""
        self._count -= 1
        if self._waiting and not self._asks:
            self._asks = True
            self._turns.ask(self)

    def take_step(self) -> bool:
        """The connection that has waited longest begins one."""
        if self._has_next:
            reader = self._next = next(iter(self._waiting))
            del self._waiting[reader]
            reader.begin_next()
            self._next = None
        self._asks = self._has_next
        return self._asks

    @property
    def _has_next(self) -> bool:
        return bool(self._waiting) and self._count < limits.READS_OF_ALL
