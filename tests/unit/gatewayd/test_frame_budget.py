"""How many frames of HTTP/2 that ask for nothing a client may send."""

import pytest

from gatewayd.http.frame_budget import FrameBudget

DATA, HEADERS, RESET, SETTINGS, PING, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM = 1


def frame(kind: int, size: int, flags: int = 0) -> bytes:
    return size.to_bytes(3) + bytes([kind, flags]) + (1).to_bytes(4) + bytes(size)


def taken(data: bytes, count: int, *, most: float = 100, now: float = 0.0) -> int:
    """How many of `count` are taken."""
    budget = FrameBudget(most, 10, 0.0, skip=0)
    return next((number for number in range(count) if not budget.take(data, now)), count)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (frame(PING, 8), 100),
        (frame(WINDOW, 4), 100),
        (frame(CONTINUATION, 10), 100),
        (frame(99, 0), 100),
        (frame(RESET, 4), 50),
        (frame(HEADERS, 20) + frame(RESET, 4), 50),
        (frame(SETTINGS, 0), 25),
        (frame(DATA, 0), 100),
        (frame(DATA, 255), 100),
        (frame(DATA, 256), 1000),
        (frame(DATA, 0, END_STREAM), 1000),
        (frame(HEADERS, 20), 1000),
    ],
)
def test_what_asks_for_nothing_costs_and_what_works_does_not(data: bytes, expected: int) -> None:
    assert taken(data, 1000) == expected


def test_frames_are_counted_however_they_are_cut() -> None:
    flood = b"PREFACE" + frame(PING, 8) * 101
    for size in (1, 2, 9, 10, 17, 1000):
        budget = FrameBudget(100, 10, 0.0, skip=len(b"PREFACE"))
        answers = [budget.take(flood[begin : begin + size], 0.0) for begin in range(0, len(flood), size)]
        assert answers[-1] is False
        assert all(answers[: (7 + 17 * 100) // size])


def test_the_budget_comes_back_with_time_and_with_what_the_client_is_sent() -> None:
    budget = FrameBudget(100, 10, 0.0, skip=0)
    assert budget.take(frame(PING, 8) * 100, 0.0)
    assert budget.take(frame(PING, 8) * 50, 5.0)
    budget.sent_data()
    assert budget.take(frame(WINDOW, 4) * 2, 5.0)
    assert not budget.take(frame(WINDOW, 4), 5.0)


def test_no_rest_makes_the_budget_grow_beyond_its_size() -> None:
    budget = FrameBudget(100, 10, 0.0, skip=0)
    assert not budget.take(frame(PING, 8) * 101, 10_000.0)
