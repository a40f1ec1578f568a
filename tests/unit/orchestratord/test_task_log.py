import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llorch.errors import InvalidArgument, Reason
from orchestratord.core.facts import task_log
from orchestratord.core.facts.task_log import Cursor, LogWindow, Packing, TaskLog


@dataclass
class Entry:
    seq: int
    choice: int = 0
    token_ids: list[int] = field(default_factory=lambda: [1])


def pack(entries: Sequence[Entry]) -> bytes:
    return b"".join(json.dumps(asdict(entry)).encode() + b"\n" for entry in entries)


def unpack(packed: bytes) -> list[Entry]:
    return [Entry(**json.loads(line)) for line in packed.splitlines()]


PACKING: Packing[Entry] = Packing(
    pack, unpack, lambda entry: len(pack([entry])), lambda entry, before: zlib.crc32(pack([entry]), before)
)


def log_with(*entries: Entry) -> TaskLog[Entry]:
    log: TaskLog[Entry] = TaskLog(PACKING)
    log.begin_attempt("a1")
    for entry in entries:
        assert log.append("a1", entry)
    return log


@pytest.mark.req("ORCH-1005")
def test_only_the_current_attempt_may_append() -> None:
    log = log_with(Entry(0))
    log.end_attempt("a1")
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
    assert list(log.first_index) == [0, 0, 2, 2, 1]
    assert log.tokens_of_choice(0) == 3
    assert log.choices() == [0, 1]


@given(st.integers(0, 10**14), st.integers(0, 10**14), st.none() | st.integers(0, 2**32 - 1))
def test_a_cursor_is_read_as_it_was_written(epoch: int, seq: int, digest: int | None) -> None:
    assert Cursor.parse(str(Cursor(epoch, seq, digest))) == Cursor(epoch, seq, digest)


def test_a_cursor_goes_on_only_after_what_its_reader_was_shown() -> None:
    shown, other = log_with(Entry(0), Entry(1)), log_with(Entry(0), Entry(1, token_ids=[7]), Entry(2))
    assert other.resume_at(shown.cursor_at(1)) == 1, "so far they are the same"
    with pytest.raises(InvalidArgument) as refused:
        other.resume_at(shown.cursor_at(2))
    assert refused.value.reason is Reason.STREAM_RESET
    assert other.resume_at(Cursor(1, 2)) == 2, "an earlier release told no digest"


def test_a_found_log_that_is_shorter_than_what_was_shown_is_another_one() -> None:
    log = log_with(Entry(0))
    log.was_found = True
    with pytest.raises(InvalidArgument) as refused:
        log.resume_at(Cursor(1, 2, 5))
    assert refused.value.reason is Reason.STREAM_RESET


@pytest.mark.req("ORCH-1008")
def test_of_two_attempts_the_first_to_append_decides() -> None:
    log = log_with(Entry(0))
    log.begin_attempt("a2")
    log.begin_attempt("a3")
    assert log.append("a2", Entry(1))
    assert log.writers == ("a2",)
    assert not log.append("a1", Entry(2))
    assert not log.append("a3", Entry(2))
    assert log.append("a2", Entry(2))


def test_what_each_attempt_has_brought_is_known_while_it_is_open_and_after() -> None:
    log = log_with(Entry(0, token_ids=[1, 2]))
    log.begin_attempt("a2")
    assert (log.tokens_of_attempt("a1"), log.tokens_of_attempt("a2")) == (2, 0)
    log.append("a2", Entry(1, token_ids=[3]))
    assert (log.tokens_of_attempt("a1"), log.tokens_of_attempt("a2")) == (2, 1)
    log.end_attempt("a2")
    assert log.tokens_of_attempt("a2") == 1
    assert log.tokens_of_attempt("never") == 0


@pytest.mark.parametrize(
    "text",
    [
        "abc",
        "1",
        "1.",
        ".1",
        "1.2.3",
        "1.2.0000000G",
        "1.2.00000000.1",
        "1.2.ABCDEF00",
        "-1.2",
        "1.2 ",
        "1." + "9" * 30,
        "١.٢x",
    ],
)
def test_what_is_no_cursor_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Cursor.parse(text)
    assert refused.value.reason is Reason.INVALID_CURSOR


@pytest.mark.parametrize("epoch", [1, 4, 6], ids=["the first", "an earlier one", "of a clock that was set back"])
def test_a_cursor_of_another_log_of_a_task_that_started_over_is_a_stream_reset(epoch: int) -> None:
    log = log_with(Entry(0))
    log.log_epoch = 5
    with pytest.raises(InvalidArgument) as refused:
        log.resume_at(Cursor(epoch, 1))
    assert refused.value.reason is Reason.STREAM_RESET


@pytest.mark.parametrize("epoch", [1, 5, 7])
def test_a_cursor_that_has_read_nothing_is_good_in_every_log(epoch: int) -> None:
    log = log_with(Entry(0))
    log.log_epoch = 5
    assert log.resume_at(Cursor(epoch, 0)) == 0


@pytest.mark.parametrize("cursor", [Cursor(9, 99999), Cursor(9, 1), Cursor(0, 1)])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_cursor_that_was_never_given_is_not_said_to_be_of_an_output_that_started_over(
    cursor: Cursor, *, sealed: bool
) -> None:
    log = log_with(Entry(0))
    if sealed:
        log.seal()
    with pytest.raises(InvalidArgument) as refused:
        log.resume_at(cursor)
    assert refused.value.reason is Reason.INVALID_CURSOR
    assert "use the cursor of an event of this task" in refused.value.message


def test_a_cursor_beyond_the_end_is_refused() -> None:
    with pytest.raises(InvalidArgument) as refused:
        log_with(Entry(0)).resume_at(Cursor(1, 2))
    assert refused.value.reason is Reason.INVALID_CURSOR


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 30)), st.booleans())
def test_packed_or_not_the_entries_are_there_in_any_order_of_reading(
    choices: list[int], read: list[int], sealed: bool
) -> None:
    entries = [Entry(seq, choice, [seq] * choice) for seq, choice in enumerate(choices)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_log, "BLOCK_ENTRIES", 4)
        log = log_with(*entries)
        if sealed:
            log.seal()
        window = LogWindow(log)
        asked = [seq for seq in read if seq < len(entries)]
        assert [window[seq] for seq in asked] == [entries[seq] for seq in asked]
        assert log.packed() == pack(entries)
        assert log.size == len(pack(entries)) + 8 * len(entries)


def test_a_reader_goes_on_where_it_was_while_the_log_is_packed_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_log, "BLOCK_ENTRIES", 3)
    log = log_with()
    window = LogWindow(log)
    for seq in range(8):
        assert log.append("a1", Entry(seq))
        assert window[seq].seq == seq
    log.seal()
    assert [window[seq].seq for seq in range(8)] == list(range(8))


def test_large_entries_are_packed_before_many_have_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_log, "BLOCK_BYTES", 100)
    log = log_with(*(Entry(seq, 0, [7] * 30) for seq in range(9)))
    assert len(log._tail) < 2
