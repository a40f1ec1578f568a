"""Which connections may be there: how many in all, how many of one address, and which one leaves for a newcomer."""

import ipaddress
from functools import lru_cache
from itertools import islice
from typing import Generic, Protocol, TypeVar


class Holder(Protocol):
    """What holds a place."""

    @property
    def address(self) -> str: ...

    @property
    def is_serving(self) -> bool: ...

    @property
    def has_request(self) -> bool:
        """One that is being answered, or is still to be read or let in."""
        ...


H = TypeVar("H", bound=Holder)

MAX_CONNECTIONS = "max_connections"
MAX_PER_ADDRESS = "max_per_address"
"""The settings."""

_V6_NETWORK = 64
"""Bits. A machine may take any address of its network, so the network counts as one."""

_ADDRESSES = 1024
"""Of which the origin is remembered: it takes as long as a connection's other bookkeeping, and is asked for often."""


@lru_cache(_ADDRESSES)
def origin_of(address: str) -> str | None:
    """What counts as one address; None for this machine, where a proxy may stand before all clients."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            if parsed.is_loopback:
                return None
            return str(ipaddress.ip_network((parsed, _V6_NETWORK), strict=False))
        parsed = parsed.ipv4_mapped
    return None if parsed.is_loopback else str(parsed)


class Places(Generic[H]):
    """A connection that serves no request keeps its place only until another one needs it: one that asks for nothing,
    or for nothing that it may have, keeps no client out.
    """

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._by_origin: dict[str | None, dict[H, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def all(self) -> list[H]:
        return [holder for holders in self._by_origin.values() for holder in holders]

    def refused_by(self, address: str) -> str | None:
        """The limit by which no further one may come; None if one may, once `in_the_way` has left."""
        origin = origin_of(address)
        if origin is not None and len(self._by_origin.get(origin, ())) >= self._most_per_address:
            return MAX_PER_ADDRESS
        return None if self._count < self._most or self._yielding() is not None else MAX_CONNECTIONS

    def in_the_way(self) -> H | None:
        """Which one has to leave before the next comes: of the address with the most, the oldest that serves none. One
        that waits to be let in leaves after those that ask for nothing: it would be the oldest by the time that its key
        is checked, where many come at once. Only after those that have been there for as long, though: a newcomer
        has had no time to ask.
        """
        return None if self._count < self._most else self._yielding()

    def take(self, holder: H) -> None:
        self._by_origin.setdefault(origin_of(holder.address), {})[holder] = None
        self._count += 1

    def leave(self, holder: H) -> None:
        """Once or more often."""
        origin = origin_of(holder.address)
        holders = self._by_origin.get(origin, {})
        if holder in holders:
            del holders[holder]
            self._count -= 1
            if not holders:
                del self._by_origin[origin]

    def _yielding(self) -> H | None:
        for holders in sorted(self._by_origin.values(), key=len, reverse=True):
            older = islice(holders, len(holders) // 2)
            yielding = next((holder for holder in older if not holder.has_request), None)
            if yielding is None:
                yielding = next((holder for holder in holders if not holder.is_serving), None)
            if yielding is not None:
                return yielding
        return None
