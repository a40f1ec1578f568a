from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llorch.errors import InvalidArgument, Reason
from orchestratord.core.facts.task_log import Cursor, TaskLog


@dataclass
class Entry:
    seq: int
    choice: int = 0
    token_ids: list[int] = field(default_factory=lambda: [1])


def log_with(*entries: Entry) -> TaskLog[Entry]:
    log: TaskLog[Entry] = TaskLog()
    log.begin_attempt("a1")
    for entry in entries:
        assert log.append("a1", entry)
    return log


@pytest.mark.req("ORCH-1005")
def test_only_the_current_attempt_may_append() -> None:
    log = log_with(Entry(0))
    log.begin_attempt("a2")
    assert not log.append("a1", Entry(1))
    assert log.append("a2", Entry(1))


def test_an_entry_that_repeats_or_skips_is_not_taken() -> None:
    log = log_with(Entry(0))
    assert not log.append("a1", Entry(0))
    assert not log.append("a1", Entry(2))
    assert len(log) == 1


def test_nothing_follows_the_seal() -> None:
    log = log_with(Entry(0))
    log.seal()
    assert not log.append("a1", Entry(1))


def test_the_index_of_the_first_token_is_counted_per_choice() -> None:
    log = log_with(Entry(0, 0, [1, 2]), Entry(1, 1, [3]), Entry(2, 0, []), Entry(3, 0, [4]), Entry(4, 1, [5]))
    assert log.first_index == [0, 0, 2, 2, 1]
    assert log.tokens_of_choice(0) == 3
    assert log.choices() == [0, 1]


@given(st.integers(0, 10**14), st.integers(0, 10**14))
def test_a_cursor_is_read_as_it_was_written(epoch: int, seq: int) -> None:
    assert Cursor.parse(str(Cursor(epoch, seq))) == Cursor(epoch, seq)


@pytest.mark.parametrize("text", ["abc", "1", "1.", ".1", "1.2.3", "-1.2", "1.2 ", "1." + "9" * 30, "١.٢x"])
def test_what_is_no_cursor_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Cursor.parse(text)
    assert refused.value.reason is Reason.INVALID_CURSOR


def test_a_cursor_of_an_earlier_log_is_a_stream_reset() -> None:
    log = log_with(Entry(0))
    with pytest.raises(InvalidArgument) as refused:
        log.resume_at(Cursor(log.log_epoch + 1, 1))
    assert refused.value.reason is Reason.STREAM_RESET


@pytest.mark.parametrize("epoch", [1, 5, 7])
def test_a_cursor_that_has_read_nothing_is_good_in_every_log(epoch: int) -> None:
    log = log_with(Entry(0))
    log.log_epoch = 5
    assert log.resume_at(Cursor(epoch, 0)) == 0


def test_a_cursor_beyond_the_end_is_refused() -> None:
    with pytest.raises(InvalidArgument) as refused:
        log_with(Entry(0)).resume_at(Cursor(1, 2))
    assert refused.value.reason is Reason.INVALID_CURSOR
