"""The requests that the gateway serves at once, and which of them gives way to another."""

from collections import Counter

from gatewayd.exchange import Exchange
from gatewayd.http import limits
from gatewayd.http.limit_log import LimitLog
from gatewayd.http.places import MAX_PER_ADDRESS, origin_of
from llorch.errors import Reason, ResourceExhausted

_RETRY_MS = 1000
MAX_REQUESTS = "max_requests"
"""The setting."""


class Slots:
    """Only a request that was let in takes one, and only while it is worked on: an answer that is complete and waits
    for its client holds none. Where all are taken, the stream gives way whose client has taken nothing for the longest
    time. `most_per_address` is for addresses of other machines.
    """

    def __init__(self, most: int, most_per_address: int, limit_log: LimitLog) -> None:
        self._limit_log = limit_log
        self._most = most
        self._most_per_address = most_per_address
        self._taken: dict[Exchange, None] = {}
        self._by_origin: Counter[str] = Counter()

    def take(self, exchange: Exchange, now: float) -> None:
        """Raises ResourceExhausted."""
        origin = _origin(exchange)
        if origin is not None and self._by_origin[origin] >= self._most_per_address:
            self._tell(MAX_PER_ADDRESS, exchange)
            raise _full(
                MAX_PER_ADDRESS, f"this gateway serves {self._most_per_address} requests of your address already"
            )
        if len(self._taken) >= self._most:
            self._tell(MAX_REQUESTS, exchange)
            if not self._free_one(now):
                raise _full(MAX_REQUESTS, f"this gateway serves {self._most} requests already")
        self._taken[exchange] = None
        exchange.keep_place()
        if origin is not None:
            self._by_origin[origin] += 1

    def leave(self, exchange: Exchange) -> None:
        """Once or more often."""
        if exchange not in self._taken:
            return
        del self._taken[exchange]
        origin = _origin(exchange)
        if origin is not None:
            self._by_origin[origin] -= 1
            if not self._by_origin[origin]:
                del self._by_origin[origin]

    def _tell(self, limit: str, exchange: Exchange) -> None:
        client = "unknown" if exchange.client is None else exchange.client[0]
        self._limit_log.reached(limit, client, correlation_id=exchange.correlation_id)

    def _free_one(self, now: float) -> bool:
        longest = max(self._taken, key=lambda exchange: exchange.stalled_s(now))
        if longest.stalled_s(now) < limits.GIVES_WAY_AFTER_S:
            return False
        self.leave(longest)
        longest.abort()
        return True


def _origin(exchange: Exchange) -> str | None:
    return None if exchange.client is None else origin_of(exchange.client[0])


def _full(limit: str, message: str) -> ResourceExhausted:
    return ResourceExhausted(
        Reason.TOO_MANY_CALLS,
        f"{message}, as many as its {limit} lets it; try again in a moment",
        retry_after_ms=_RETRY_MS,
        metadata={"limit": limit},
    )
