"""The deliveries of all gateways."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llorch.errors import Reason, ResourceExhausted, Unavailable
from llorch.identifiers import secret_token
from orchestratord.runtime.delivery import Delivery

MOST_READERS = 4096
"""Of all deliveries together, as many as streams of all other calls."""

_RETRY_MS = 100


class Deliveries:
    """By their ids."""

    def __init__(self, slow_after_s: float) -> None:
        self._slow_after_s = slow_after_s
        self._open: dict[str, Delivery] = {}

    @contextmanager
    def open(self, wake: Callable[[], None]) -> Iterator[Delivery]:
        """All of its readers leave with the block."""
        delivery = Delivery(secret_token(), wake, self._slow_after_s)
        self._open[delivery.delivery_id] = delivery
        try:
            yield delivery
        finally:
            del self._open[delivery.delivery_id]
            delivery.leave_all()

    def find(self, delivery_id: str) -> Delivery:
        """One that has a place for another reader. Raises Unavailable, ResourceExhausted."""
        delivery = self._open.get(delivery_id)
        if delivery is None:
            raise Unavailable(
                Reason.UPSTREAM_UNAVAILABLE, "this orchestrator has no such delivery any more; open another one"
            )
        if sum(len(each) for each in self._open.values()) >= MOST_READERS:
            raise ResourceExhausted(
                Reason.TOO_MANY_CALLS,
                f"this orchestrator has {MOST_READERS} readers on its deliveries already; try again shortly",
                retry_after_ms=_RETRY_MS,
            )
        return delivery
