"""The deliveries of all gateways. How many readers there are is the brain's to bound."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llorch.errors import Reason, Unavailable
from llorch.identifiers import secret_token
from orchestratord.runtime.delivery import Delivery


class Deliveries:
    """By their ids."""

    def __init__(self, slow_after_s: float) -> None:
        self._slow_after_s = slow_after_s
        self._open: dict[str, Delivery] = {}

    @contextmanager
    def open(self, wake: Callable[[], None]) -> Iterator[Delivery]:
        """With the block it breaks off."""
        delivery = Delivery(secret_token(), wake, self._slow_after_s)
        self._open[delivery.delivery_id] = delivery
        try:
            yield delivery
        finally:
            del self._open[delivery.delivery_id]
            delivery.break_off()

    def find(self, delivery_id: str) -> Delivery:
        """Raises Unavailable."""
        delivery = self._open.get(delivery_id)
        if delivery is None:
            raise Unavailable(
                Reason.UPSTREAM_UNAVAILABLE, "this orchestrator has no such delivery any more; open another one"
            )
        return delivery
