"""The requests that are served at once."""

from typing import Any

import pytest

from gatewayd.exchange import Exchange
from gatewayd.http.limit_log import LimitLog
from gatewayd.http.stream import RequestHead
from gatewayd.slots import Slots
from llorch.errors import Reason, ResourceExhausted


class Client:
    """Only what slots ask of a stream."""

    def __init__(self, stalled_s: float = 0.0) -> None:
        self._stalled_s = stalled_s
        self.is_aborted = False

    def stalled_s(self, now: float) -> float:
        return self._stalled_s

    def abort(self) -> None:
        self.is_aborted = True

    def keep_place(self) -> None: ...


def request(client: Client, address: str = "127.0.0.1") -> Exchange:
    stream: Any = client
    return Exchange(RequestHead("GET", "/", b"", {}, (address, 5)), stream)


def test_a_further_request_is_refused_until_one_has_left() -> None:
    slots, first = Slots(1, 9, LimitLog(lambda: 0.0)), request(Client())
    slots.take(first, 0.0)
    with pytest.raises(ResourceExhausted, match="serves 1 requests already") as caught:
        slots.take(request(Client()), 0.0)
    assert (caught.value.reason, caught.value.retry_after_ms) == (Reason.TOO_MANY_CALLS, 1000)
    slots.leave(first)
    slots.leave(first)
    slots.take(request(Client()), 0.0)


def test_the_stream_whose_client_has_taken_nothing_for_the_longest_time_gives_way() -> None:
    slots = Slots(3, 9, LimitLog(lambda: 0.0))
    takes, lags, stands = Client(0.0), Client(5.0), Client(9.0)
    for client in (takes, lags, stands):
        slots.take(request(client), 0.0)
    slots.take(request(Client()), 0.0)
    assert [client.is_aborted for client in (takes, lags, stands)] == [False, False, True]


def test_a_client_that_lags_for_a_moment_keeps_its_stream() -> None:
    slots, lags = Slots(1, 9, LimitLog(lambda: 0.0)), Client(0.5)
    slots.take(request(lags), 0.0)
    with pytest.raises(ResourceExhausted):
        slots.take(request(Client()), 0.0)
    assert not lags.is_aborted


def test_an_address_of_another_machine_has_its_own_bound_and_this_machine_has_none() -> None:
    slots = Slots(100, 2, LimitLog(lambda: 0.0))
    first = request(Client(), "10.0.0.1")
    slots.take(first, 0.0)
    slots.take(request(Client(), "10.0.0.1"), 0.0)
    with pytest.raises(ResourceExhausted, match="2 requests of your address"):
        slots.take(request(Client(), "10.0.0.1"), 0.0)
    slots.take(request(Client(), "10.0.0.2"), 0.0)
    for _ in range(5):
        slots.take(request(Client()), 0.0)
    slots.leave(first)
    slots.take(request(Client(), "10.0.0.1"), 0.0)
