"""How many frames of HTTP/2 that ask for nothing a client may send."""

from collections.abc import Iterable
from itertools import takewhile

import pytest

from gatewayd.http.frame_budget import FrameBudget

DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM = 1
MOST_HEAD = 30_000


def frame(kind: int, size: int, flags: int = 0, stream: int = 1) -> bytes:
    return size.to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + bytes(size)


def budget(skip: int = 0) -> FrameBudget:
    return FrameBudget(100, 10, 0.0, skip=skip, most_head_bytes=MOST_HEAD)


def taken(frames: Iterable[bytes], of: FrameBudget | None = None) -> int:
    """How many are taken."""
    of = of or budget()
    return sum(1 for _ in takewhile(lambda data: of.take(data, 0.0) is not None, frames))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (frame(PING, 8), 100),
        (frame(WINDOW, 4), 100),
        (frame(PRIORITY, 5), 100),
        (frame(99, 0), 100),
        (frame(RESET, 4), 50),
        (frame(SETTINGS, 0), 25),
        (frame(DATA, 0), 100),
        (frame(DATA, 255), 100),
        (frame(DATA, 0, END_STREAM), 100),
        (frame(CONTINUATION, 10), 100),
    ],
)
def test_what_asks_for_nothing_costs(data: bytes, expected: int) -> None:
    assert taken([data] * 1000) == expected


def test_new_requests_their_bodies_and_large_frames_cost_nothing() -> None:
    of = budget()
    for stream in range(1, 2001, 2):
        whole = frame(HEADERS, 20, stream=stream) + frame(DATA, 256, stream=stream) + frame(DATA, 9, END_STREAM, stream)
        assert of.take(whole, 0.0) == whole


def test_what_comes_for_streams_that_are_over_costs() -> None:
    """The library answers each with a reset."""
    for again in (frame(HEADERS, 20, END_STREAM), frame(DATA, 0, END_STREAM)):
        of = budget()
        of.take(frame(HEADERS, 20) + frame(DATA, 0, END_STREAM), 0.0)
        assert taken([again] * 1000, of) == 100
    of = budget()
    of.take(frame(HEADERS, 20) + frame(RESET, 4), 0.0)
    assert taken([frame(DATA, 0, END_STREAM)] * 1000, of) == 98
    assert taken(frame(HEADERS, 20, stream=2 * number + 1) + frame(RESET, 4) for number in range(1000)) == 50


def test_a_head_is_bounded_however_it_is_cut() -> None:
    assert budget().take(frame(HEADERS, MOST_HEAD + 1), 0.0) is None
    of = budget()
    of.take(frame(HEADERS, 10_000), 0.0)
    assert taken([frame(CONTINUATION, 5000)] * 50, of) == 4
    of = budget()
    assert of.take(frame(HEADERS, MOST_HEAD) + frame(HEADERS, MOST_HEAD, stream=3), 0.0) is not None


def test_settings_are_bounded_over_the_life_of_a_connection() -> None:
    of = budget()
    assert of.take(frame(SETTINGS, 6 * 100), 0.0) is not None
    assert of.take(frame(SETTINGS, 6 * 100), 1000.0) is not None
    assert of.take(frame(SETTINGS, 6), 2000.0) is None


def test_the_end_of_asking_is_noted_and_kept_from_the_library() -> None:
    for size in (1, 5, 100):
        of = budget()
        before, after = frame(PING, 8), frame(WINDOW, 4)
        data = before + frame(GOAWAY, 12, stream=0) + after
        read = b"".join(of.take(data[begin : begin + size], 0.0) or b"" for begin in range(0, len(data), size))
        assert (read, of.goes_away) == (before + after, True)


def test_frames_are_counted_however_they_are_cut() -> None:
    flood = b"PREFACE" + frame(PING, 8) * 101
    for size in (1, 2, 9, 10, 17, 1000):
        of = budget(skip=len(b"PREFACE"))
        answers = [of.take(flood[begin : begin + size], 0.0) for begin in range(0, len(flood), size)]
        assert answers[-1] is None
        whole = (7 + 17 * 100) // size
        read = b"".join(answer or b"" for answer in answers[:whole])
        assert flood.startswith(read)
        assert whole * size - len(read) < 9, "all but the head of a frame that is cut"


def test_what_is_left_of_a_frame_is_told() -> None:
    of = budget(skip=3)
    told = []
    for data in (b"PRE", frame(DATA, 500)[:9], bytes(200), bytes(300)):
        of.take(data, 0.0)
        told.append(of.left_of_frame)
    assert told == [0, 500, 300, 0]


def test_the_budget_comes_back_with_time_and_with_what_the_client_is_sent() -> None:
    of = budget()
    assert of.take(frame(PING, 8) * 100, 0.0)
    assert of.take(frame(PING, 8) * 50, 5.0)
    of.sent_data()
    assert of.take(frame(WINDOW, 4) * 2, 5.0)
    assert of.take(frame(WINDOW, 4), 5.0) is None


def test_no_rest_makes_the_budget_grow_beyond_its_size() -> None:
    assert budget().take(frame(PING, 8) * 101, 10_000.0) is None
