"""Records of workers on disk: what an earlier release wrote, and what a later one may have."""

import os
from pathlib import Path

from llorch.cache_type import CacheType
from llorch.worker_spec import WorkerSpec
from pool_managerd.workers.identity import ProcessIdentity
from pool_managerd.workers.journal import Journal, Stage, WorkerRecord

WRITTEN_BY_0_1 = (
    '{"worker_id": "w-1", "stage": "started", "spec": {"worker_id": "w-1", "model": "coder", '
    '"source": "file:/models/coder.gguf", "device_ids": ["GPU-1", "GPU-2"], "slots": 4, "context_per_slot": 8192, '
    '"cache_type_k": "q8_0", "cache_type_v": "q4_0", "tensor_split": [0.75, 0.25], "reservation_mib": [9000, 3000]}, '
    '"access_token": "access", "ready_token": "ready", "process": {"pid": 4711, "start_ticks": 15, "boot_id": "b"}, '
    '"address": "127.0.0.1:9301", "load_deadline_s": 330.0, "stall_s": 30.0, '
    '"start_time": "2026-11-01T12:00:00+00:00", "ready_time": null}'
)
SPEC = WorkerSpec(
    worker_id="w-1",
    model="coder",
    source="file:/models/coder.gguf",
    device_ids=("GPU-1", "GPU-2"),
    slots=4,
    context_per_slot=8192,
    cache_type_k=CacheType.Q8_0,
    cache_type_v=CacheType.Q4_0,
    tensor_split=(0.75, 0.25),
    reservation_mib=(9000, 3000),
)


def read(folder: Path, text: str) -> WorkerRecord:
    (folder / "w-1.json").write_text(text)
    (record,) = Journal(folder).read_all()
    return record


def test_a_record_of_the_first_release_is_read(tmp_path: Path) -> None:
    record = read(tmp_path, WRITTEN_BY_0_1)
    assert record.spec == SPEC
    assert isinstance(record.spec.cache_type_k, CacheType)
    assert (record.stage, record.process, record.port) == (Stage.STARTED, ProcessIdentity(4711, 15, "b"), 9301)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    record = read(tmp_path, WRITTEN_BY_0_1)
    Journal(tmp_path).write(record)
    assert Journal(tmp_path).read_all() == [record]
    assert (tmp_path / "w-1.json").read_text() == WRITTEN_BY_0_1.replace('"spec": {', '"spec": {"engine": "", ')


def test_a_record_without_a_later_field_and_with_an_unknown_one_is_read(tmp_path: Path) -> None:
    older = WRITTEN_BY_0_1.replace('"cache_type_v": "q4_0", ', "").replace('"slots": 4', '"slots": 4, "colour": "red"')
    spec = read(tmp_path, older).spec
    assert spec is not None
    assert (spec.slots, spec.cache_type_v) == (4, CacheType.F16)


def test_what_was_being_written_when_a_pool_manager_was_killed_is_removed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(WorkerRecord("w-1", Stage.ENDED))
    left = tmp_path / "w-2.new"
    left.touch()
    os.utime(left, (1, 1))
    journal.forget_oldest_ended()
    assert [path.name for path in tmp_path.iterdir()] == ["w-1.json"]
