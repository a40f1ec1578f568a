"""What workers saved goes with its time, beyond the budget, and when it is to be forgotten; what is there is told."""

import asyncio
import os
import stat
import time
from pathlib import Path

import pytest

from llorch.saved_sessions import files_of
from pool_managerd.saved_place import SavedState
from pool_managerd.saved_sessions import SavedSessions

MIB = 2**20
ONE, OTHER = "a" * 64, "b" * 64


def saved_at(folder: Path, session: str, *, ends_in_s: float = 100, size: int = MIB // 2, suffix: str = ".kv") -> Path:
    path = folder / f"{session}.{'f' * 32}.{len(list(folder.iterdir())):016x}{suffix}"
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time(), time.time() + ends_in_s))
    return path


class Kept:
    def __init__(self, root: Path, budget_mib: int = 2) -> None:
        self.rings = 0
        self.folder = root / "sessions"
        self.sessions = SavedSessions(self.folder, root / "key.json", budget_mib, self._ring)

    def _ring(self) -> None:
        self.rings += 1


async def test_what_is_there_is_counted_and_told_once(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    saved_at(kept.folder, ONE)
    saved_at(kept.folder, OTHER)
    saved_at(kept.folder, OTHER)
    await kept.sessions.look()
    await kept.sessions.look()
    assert (kept.sessions.state, kept.rings) == (SavedState(3, 2, 2), 1)


async def test_what_is_over_goes_and_what_is_beyond_the_budget(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    over = saved_at(kept.folder, ONE, ends_in_s=-1)
    files = [saved_at(kept.folder, OTHER, ends_in_s=100 + number) for number in range(5)]
    await kept.sessions.look()
    assert not over.exists()
    assert [file.path for file in files_of(kept.folder)] == files[1:], "what ends soonest goes first"


async def test_what_a_killed_worker_has_half_written_goes_and_what_is_being_written_stays(
    tmp_path: Path,
) -> None:
    kept = Kept(tmp_path)
    old = saved_at(kept.folder, ONE, ends_in_s=-100, suffix=".new")
    fresh = saved_at(kept.folder, ONE, ends_in_s=-1, suffix=".new")
    await kept.sessions.look()
    assert (old.exists(), fresh.exists()) == (False, True)
    assert kept.sessions.state == SavedState(0, 0, 2)


async def test_sessions_are_forgotten_by_name_and_all_without_one(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    for session in (ONE, ONE, OTHER):
        saved_at(kept.folder, session)
    await kept.sessions.forget([ONE, "c" * 64])
    assert {file.path.name[:64] for file in files_of(kept.folder)} == {OTHER}
    assert kept.sessions.state.sequences == 1
    await kept.sessions.forget([])
    assert not files_of(kept.folder)


async def test_the_loop_removes_what_ends_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool_managerd.saved_sessions.SWEEP_S", 0.02)
    kept = Kept(tmp_path)
    path = saved_at(kept.folder, ONE, ends_in_s=0.2)
    running = asyncio.create_task(kept.sessions.run())
    try:
        async with asyncio.timeout(5):
            while kept.sessions.state.sequences or path.exists():
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_the_folder_and_the_key_are_their_owners_alone_and_outlive_the_pool_manager(tmp_path: Path) -> None:
    (tmp_path / "sessions").mkdir(mode=0o755)
    first, second = Kept(tmp_path).sessions.place, Kept(tmp_path).sessions.place
    assert first is not None
    assert first == second
    assert len(bytes.fromhex(first.key)) == 32
    assert first.key not in repr(first)
    assert stat.S_IMODE(first.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "key.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "{}", '{"key": 5}', '{"key": "ab"}', '{"key": "no digits"}', "[]"])
def test_a_key_that_can_not_be_read_is_made_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "key.json").write_text(content)
    place = Kept(tmp_path).sessions.place
    assert place is not None
    assert len(bytes.fromhex(place.key)) == 32


async def test_a_disk_that_fails_ends_neither_the_pool_manager_nor_the_life_of_a_worker(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    other = saved_at(kept.folder, OTHER)
    await kept.sessions.look()
    loop = kept.folder / f"{ONE}.kv"
    loop.symlink_to(loop)
    await kept.sessions.look()
    await kept.sessions.forget([OTHER])
    assert not other.exists()


def test_a_key_that_is_written_otherwise_is_told_to_workers_as_they_take_it(tmp_path: Path) -> None:
    """None would start: they refuse a setting that is not as it should be."""
    (tmp_path / "key.json").write_text('{"key": "%s"}' % ("AB " * 32))
    place = Kept(tmp_path).sessions.place
    assert place is not None
    assert place.key == "ab" * 32


async def test_without_a_budget_nothing_is_saved_and_what_was_goes(tmp_path: Path) -> None:
    path = saved_at(Kept(tmp_path).folder, ONE)
    kept = Kept(tmp_path, budget_mib=0)
    await kept.sessions.look()
    assert kept.sessions.place is None
    assert not path.exists()
    assert kept.sessions.state == SavedState(0, 0, 0)


async def test_where_the_folder_can_not_be_made_nothing_is_saved(tmp_path: Path) -> None:
    (tmp_path / "sessions").write_text("a file")
    kept = Kept(tmp_path)
    await kept.sessions.look()
    assert kept.sessions.place is None
    assert kept.sessions.state == SavedState(0, 0, 0)
