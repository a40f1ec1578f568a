"""What a worker saved of a session, the next one of the same fingerprint gets, bit by bit; and nothing else."""

import errno
import os
import stat
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llorch.clock import SystemClock
from support.manual_clock import ManualClock
from worker_orcd.engine_info import Fingerprint
from worker_orcd.engines.llama_cpp.host_cache import SavedSequence
from worker_orcd.engines.llama_cpp.session_files import SessionFiles, Worth
from worker_orcd.engines.llama_cpp.sessions_on_disk import SessionsOnDisk

MIB = 2**20
SESSION, OTHER = "a" * 64, "b" * 64
FINGERPRINT = Fingerprint(engine_version="llama_cpp 1", model_digest="d", context_per_slot=4096)
KEY = bytes(range(32))
SLOTS = 2


def files(
    folder: Path,
    *,
    budget: int = 64 * MIB,
    key: bytes = KEY,
    fingerprint: Fingerprint = FINGERPRINT,
    slots: int = SLOTS,
) -> SessionFiles:
    return SessionFiles(SessionsOnDisk(folder, key, budget), fingerprint, slots, SystemClock())


def sequence(tokens: list[int], size: int = 1000) -> SavedSequence:
    state = np.random.default_rng(len(tokens)).integers(0, 256, size, np.uint8)
    return SavedSequence(tokens, state, first_position=3, watermark=32, session=SESSION)


def worth(*, keep_s: float = 600, prefill_s: float = 60) -> Worth:
    return Worth(keep_s, prefill_s, time.monotonic() + 60)


def saved(folder: Path, tokens: list[int] | None = None, size: int = 1000) -> Path:
    before = set(folder.glob("*.kv"))
    assert files(folder).write(SESSION, sequence(tokens or [1, 2, 3], size), worth())
    (path,) = set(folder.glob("*.kv")) - before
    return path


@pytest.mark.parametrize("size", [1, 1000, 16 * MIB, 16 * MIB + 1, 40 * MIB])
def test_the_next_worker_gets_what_was_saved(tmp_path: Path, size: int) -> None:
    wrote = sequence([1, 2, 2**31 - 1], size)
    assert files(tmp_path).write(SESSION, wrote, worth())
    (head,) = files(tmp_path).heads(SESSION)
    assert (head.tokens, head.first_position, head.watermark) == (wrote.tokens, 3, 32)
    took = files(tmp_path).take(head)
    assert took is not None
    assert np.array_equal(took.state, wrote.state)
    assert (took.tokens, took.first_position, took.watermark, took.session) == (wrote.tokens, 3, 32, SESSION)
    assert not list(tmp_path.glob("*.kv")), "it is in the engine's memory now"


def test_files_are_their_owners_alone_and_say_when_they_end(tmp_path: Path) -> None:
    old_mask = os.umask(0)
    try:
        path = saved(tmp_path)
    finally:
        os.umask(old_mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert abs(path.stat().st_mtime - time.time() - 600) < 5
    assert not list(tmp_path.glob("*.new"))


def test_each_session_and_each_fingerprint_has_its_own(tmp_path: Path) -> None:
    saved(tmp_path)
    assert not files(tmp_path).heads(OTHER)
    for other in (
        replace(FINGERPRINT, model_digest="e"),
        replace(FINGERPRINT, engine_version="llama_cpp 2"),
        replace(FINGERPRINT, cache_type_k="q8_0"),
        replace(FINGERPRINT, flash_attention=True),
        replace(FINGERPRINT, context_per_slot=8192),
    ):
        assert not files(tmp_path, fingerprint=other).heads(SESSION)
    assert not files(tmp_path, slots=SLOTS + 1).heads(SESSION), "the library refuses states of another number of slots"


def damaged(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("at", [0, 20, 25, 33, 41, 49, 56, 60, 70, 500, 1000, -33, -32, -1])
def test_one_bit_that_is_another_and_nothing_reaches_the_engine(tmp_path: Path, at: int) -> None:
    path = saved(tmp_path)
    content = path.read_bytes()
    path.write_bytes(damaged(content, at % len(content)))
    for head in files(tmp_path).heads(SESSION):
        assert files(tmp_path).take(head) is None
        assert not path.exists(), "what was refused once would be refused again"


@pytest.mark.parametrize("cut", [1, 32, 33, 500, 1030])
def test_a_torn_file_reaches_no_engine(tmp_path: Path, cut: int) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    assert [files(tmp_path).take(head) for head in files(tmp_path).heads(SESSION)] in ([], [None])


def test_what_lies_under_another_name_or_was_made_with_another_key_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.rename(path.with_name(path.name.replace(SESSION, OTHER)))
    (head,) = files(tmp_path).heads(OTHER)
    assert files(tmp_path).take(head) is None
    saved(tmp_path)
    (head,) = files(tmp_path).heads(SESSION)
    assert files(tmp_path, key=bytes(32)).take(head) is None


def test_a_file_that_goes_while_it_is_wanted_costs_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path)
    (head,) = files(tmp_path).heads(SESSION)
    path.unlink()
    assert files(tmp_path).take(head) is None
    assert not files(tmp_path / "no folder").heads(SESSION)
    assert not files(tmp_path / "no folder").write(SESSION, sequence([1]), worth())


def test_what_a_sequence_continues_goes_and_other_branches_stay(tmp_path: Path) -> None:
    saved(tmp_path, [1, 2, 3])
    saved(tmp_path, [1, 9])
    saved(tmp_path, [1, 2, 3, 4])
    assert sorted(head.tokens for head in files(tmp_path).heads(SESSION)) == [[1, 2, 3, 4], [1, 9]]


def test_the_budget_holds_and_what_ends_soonest_goes(tmp_path: Path) -> None:
    with_budget = files(tmp_path, budget=3000)
    for number, keep_s in enumerate((300, 100, 200)):
        assert with_budget.write(SESSION, sequence([number] * 4, 1000), worth(keep_s=keep_s))
    assert sum(path.stat().st_size for path in tmp_path.glob("*.kv")) <= 3000
    assert sorted(head.tokens[0] for head in with_budget.heads(SESSION)) == [0, 2]
    assert not with_budget.write(SESSION, sequence([5], 3000), worth())
    assert len(with_budget.heads(SESSION)) == 2, "nothing goes for what does not fit at all"


def test_a_session_that_is_wanted_less_takes_no_room_of_one_that_is_wanted_more(tmp_path: Path) -> None:
    """A worker saves those first that were used last, which end last; and the longest first of one session."""
    with_budget = files(tmp_path, budget=3000)
    for tokens, keep_s in (([0] * 4, 300), ([1] * 4, 200)):
        assert with_budget.write(SESSION, sequence(tokens, 1000), worth(keep_s=keep_s))
    assert not with_budget.write(SESSION, sequence([2] * 4, 1000), worth(keep_s=100))
    assert not with_budget.write(SESSION, sequence([3] * 3, 1000), worth(keep_s=200)), "a branch of what it wrote"
    assert sorted(head.tokens[0] for head in with_budget.heads(SESSION)) == [0, 1]
    assert files(tmp_path, budget=3000).write(SESSION, sequence([4] * 4, 1000), worth(keep_s=250))
    assert sorted(head.tokens[0] for head in with_budget.heads(SESSION)) == [0, 4]


def test_a_disk_that_fails_costs_an_evaluation_and_no_task(tmp_path: Path) -> None:
    loop = tmp_path / f"{SESSION}.{files(tmp_path)._kind}.0.kv"
    loop.symlink_to(loop)
    assert files(tmp_path).heads(SESSION) == []


class SlowDisk(ManualClock):
    """Each look at the clock is as much later as a piece takes to be written."""

    def monotonic(self) -> float:
        now = super().monotonic()
        self.advance(0.5)
        return now


@pytest.mark.parametrize(("prefill_s", "is_saved"), [(1.0, False), (1.4, False), (4.0, True)])
def test_what_is_sooner_evaluated_than_written_is_not_saved(tmp_path: Path, prefill_s: float, is_saved: bool) -> None:
    slow = SessionFiles(SessionsOnDisk(tmp_path, KEY, 64 * MIB), FINGERPRINT, SLOTS, SlowDisk())
    wrote = slow.write(SESSION, sequence([1, 2], 40 * MIB), Worth(600, prefill_s, until=1e9))
    assert wrote is is_saved
    assert len(list(tmp_path.glob("*.kv"))) == is_saved
    assert not list(tmp_path.glob("*.new"))


def test_what_can_not_be_written_in_time_is_not_saved(tmp_path: Path) -> None:
    clock = SlowDisk()
    slow = SessionFiles(SessionsOnDisk(tmp_path, KEY, 64 * MIB), FINGERPRINT, SLOTS, clock)
    assert not slow.write(SESSION, sequence([1, 2], 40 * MIB), Worth(600, 1e9, until=clock.monotonic() + 1))
    assert not list(tmp_path.iterdir()) or [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_disk_that_was_slow_is_known_to_be(tmp_path: Path) -> None:
    slow = SessionFiles(SessionsOnDisk(tmp_path, KEY, 64 * MIB), FINGERPRINT, SLOTS, SlowDisk())
    assert not slow.write(SESSION, sequence([1, 2], 40 * MIB), Worth(600, 0.1, until=1e9))
    before = slow._clock.monotonic()
    assert not slow.write(SESSION, sequence([1, 2], 40 * MIB), Worth(600, 0.1, until=1e9))
    assert slow._clock.monotonic() - before <= 1.0, "it was not written to again"


def test_a_small_file_says_nothing_of_the_speed_of_the_disk(tmp_path: Path) -> None:
    """Most of its time is that of the sync."""
    slow = SessionFiles(SessionsOnDisk(tmp_path, KEY, 64 * MIB), FINGERPRINT, 2, SlowDisk())
    assert slow.write(SESSION, sequence([1, 2], 1000), Worth(600, 60, until=1e9))
    assert slow.write(SESSION, sequence([3, 4], 40 * MIB), Worth(600, 60, until=1e9))


def test_one_worker_writes_at_a_time_and_the_other_waits_no_longer_than_it_may(tmp_path: Path) -> None:
    one, other = files(tmp_path), files(tmp_path)
    with one._only_writer(time.monotonic() + 5) as may_write:
        assert may_write
        assert not other.write(SESSION, sequence([1]), Worth(600, 60, time.monotonic() + 0.2))
    assert other.write(SESSION, sequence([1]), worth())


@pytest.mark.parametrize("call", ["fdatasync", "utime"])
def test_a_full_disk_costs_this_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    earlier = saved(tmp_path, [1, 2])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    assert not files(tmp_path).write(SESSION, sequence([1, 2, 3]), worth())
    assert list(tmp_path.glob("*.kv")) == [earlier]
    assert not list(tmp_path.glob("*.new"))


@pytest.mark.parametrize("left", [0, 1, 10])
def test_a_head_that_is_cut_while_it_is_read_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    saved(tmp_path)
    read = os.pread
    monkeypatch.setattr(os, "pread", lambda *where: read(*where)[:left])
    assert not files(tmp_path).heads(SESSION)
