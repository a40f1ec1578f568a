"""The power goes at any moment: what the store has acknowledged is there, and the database is whole.

`make chaos` looks at 100 images of the disk, the suite at a tenth of that. An image is what a disk may hold that has
all that was synced, and of the rest nothing, all, some writes or some sectors; names are there if their folder was
synced, and else perhaps.
"""

import os
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from llorch.logs import get_logger
from orchestratord.core.facts.model import ModelRecord
from orchestratord.store.sqlite import FILE, open_sqlite
from support import chaos_count
from support.disk_shim import Change, Disk, DiskShim, Left, write_files
from support.store_writer import ACKNOWLEDGED, DATA, ENDED, FORGOTTEN, SAVED, ending, payload

pytestmark = pytest.mark.req("ORCH-1009")
_log = get_logger("chaos")

IMAGES = chaos_count.of(100)
IMAGES_OF_A_RUN = 20
TASKS = 400
_WRITES_WITHIN_S = 120
_NEVER = -1


@dataclass
class Acknowledged:
    """What the process was told before the power went; the last value of each."""

    said: dict[str, int] = field(default_factory=dict)
    _rest: bytes = b""

    def hear(self, change: Change) -> None:
        *lines, self._rest = (self._rest + change.data).split(b"\n")
        for line in lines:
            what, value = line.decode().split()
            self.said[what] = int(value)

    def last(self, what: str) -> int:
        return self.said.get(what, _NEVER)


def written(work: Path, seed: int) -> tuple[Path, list[Change]]:
    """The folder, and all that happened to its files."""
    work.mkdir()
    folder = work / "disk"
    folder.mkdir()
    shim = DiskShim(work, folder)
    command = [sys.executable, "-m", "support.store_writer", str(folder), str(seed), str(TASKS)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **shim.environment()}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=_WRITES_WITHIN_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, list(shim.changes())


def check_that_nothing_was_missed(folder: Path, changes: list[Change]) -> None:
    """What was recorded makes the files that are there."""
    disk = Disk()
    for change in changes:
        disk.apply(change)
    found = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    recorded = disk.present()
    names = [name for name in found | recorded if not name.endswith("-shm")]  # memory, which no start reads
    assert [name for name in names if found.get(name) != recorded.get(name)] == []
    assert Counter(change.kind for change in changes)["S"] > TASKS / 8


async def check_image(image: Path, heard: Acknowledged, where: str) -> None:
    data = image / DATA
    if (data / FILE).exists():
        with closing(sqlite3.connect(data / FILE)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], where
    data.mkdir(exist_ok=True)
    store = open_sqlite(data)
    incarnation = await store.begin_incarnation()
    tasks = {kept.request.task_id: kept for kept in await store.tasks()}
    records = [record for record in await store.records() if isinstance(record, ModelRecord)]
    noted = await store.audit(None, TASKS * 2)
    await store.close()
    for task_id, stage in heard.said.items():
        if not task_id.startswith("task-") or stage == FORGOTTEN:
            assert task_id not in tasks, f"{where}: {task_id} is back"
            continue
        kept = tasks.get(task_id)
        assert kept is not None or stage == ENDED, f"{where}: {task_id} is lost"
        if kept is None:  # to be forgotten was the next that was asked for
            continue
        if kept.ending is None:
            assert stage == SAVED, f"{where}: the end of {task_id} is lost"
            assert kept.request.payload == payload(task_id), f"{where}: {task_id} has another payload"
        else:
            assert kept.ending == ending(task_id), f"{where}: {task_id} has another end"
    value = max((record.at_ms for record in records), default=_NEVER)
    assert value in (heard.last("record"), heard.last("record") + 1), f"{where}: a record is lost"
    assert len(noted) - 1 in (heard.last("noted"), heard.last("noted") + 1), f"{where}: a note is lost"
    assert not heard.said or incarnation.control_epoch > 1, f"{where}: the epoch is lost"


@pytest.mark.timeout(120 + 10 * IMAGES)
async def test_what_was_acknowledged_is_there_after_a_power_cut(tmp_path: Path) -> None:
    """One in five images is of the first moments, while the database and its tables are made."""
    chance = Random(39)  # noqa: S311  a schedule, not a secret
    looked_at: Counter[Left] = Counter()
    acknowledged = 0
    for run in range(-(-IMAGES // IMAGES_OF_A_RUN)):
        folder, changes = written(tmp_path / f"run-{run}", seed=run)
        check_that_nothing_was_missed(folder, changes)
        count = min(IMAGES_OF_A_RUN, IMAGES - run * IMAGES_OF_A_RUN)
        first_told = next(at for at, change in enumerate(changes) if change.path.endswith(ACKNOWLEDGED) and change.data)
        cuts = sorted(chance.randint(0, first_told if number % 5 == 0 else len(changes)) for number in range(count))
        disk, heard, at = Disk(), Acknowledged(), 0
        for cut in cuts:
            for change in changes[at:cut]:
                disk.apply(change)
                if change.path.endswith(ACKNOWLEDGED):
                    heard.hear(change)
            at = cut
            left = chance.choice(list(Left))
            where = f"run {run}, power cut after {cut} of {len(changes)} changes, of the unsynced: {left.name}"
            image = tmp_path / "image"
            write_files(disk.lose_power(left, chance), folder, image)
            await check_image(image, heard, where)
            looked_at[left] += 1
            acknowledged += len(heard.said)
    kinds = {left.name: number for left, number in looked_at.items()}
    _log.info("power_cuts", images=looked_at.total(), kinds=kinds, acknowledged_and_looked_for=acknowledged)


async def test_a_database_that_does_not_wait_for_the_disk_is_found_out(tmp_path: Path) -> None:
    """The check can fail: without what was synced, acknowledged tasks are gone."""
    folder, changes = written(tmp_path / "run", seed=0)
    disk, heard = Disk(), Acknowledged()
    for change in changes:
        if change.kind != "S" or not Path(change.path).name.startswith(FILE):
            disk.apply(change)
        if change.path.endswith(ACKNOWLEDGED):
            heard.hear(change)
    image = tmp_path / "image"
    write_files(disk.lose_power(Left.NOTHING, Random(0)), folder, image)  # noqa: S311  not used
    with pytest.raises(AssertionError, match="is lost"):
        await check_image(image, heard, "without syncs")
