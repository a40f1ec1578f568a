"""Ids of workers that were used stay used, and what is kept of them is bounded, in memory and on the disk."""

from pathlib import Path

import pytest

from pool_managerd.workers import journal, records
from pool_managerd.workers.journal import Journal, Stage, WorkerRecord
from pool_managerd.workers.records import WorkerRecords


async def test_stops_of_unknown_workers_leave_a_bounded_number_of_tombstones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_KEEP_ENDED", 20)
    monkeypatch.setattr(records, "MOST_USED_IDS", 50)
    known = WorkerRecords(Journal(tmp_path))
    for number in range(300):
        await known.refuse(f"w-{number}")
    assert known.is_used("w-299")
    assert known.is_used("w-251")
    assert not known.is_used("w-0")
    assert _files(tmp_path) <= 20 + 100
    later = WorkerRecords(Journal(tmp_path))
    await later.recall()
    assert later.is_used("w-299")
    assert _files(tmp_path) == 20


async def test_a_worker_that_lives_is_never_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_USED_IDS", 5)
    known = WorkerRecords(Journal(tmp_path))
    await known.intend(WorkerRecord("lives", Stage.INTENDED))
    for number in range(30):
        await known.refuse(f"w-{number}")
    assert known.is_used("lives")
    await known.end("lives")
    assert known.is_used("lives")


def _files(folder: Path) -> int:
    return len(list(folder.iterdir()))
