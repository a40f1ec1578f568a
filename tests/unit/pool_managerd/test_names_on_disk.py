"""Files of the pool manager as an earlier release wrote them, under names that Python does not decide."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llorch.cache_type import CacheType
from llorch.errors import FailedPrecondition, Reason
from llorch.worker_spec import WorkerSpec
from pool_managerd.control import CommandHeader, ControlGuard
from pool_managerd.models.download.part_file import PartFile, PartState
from pool_managerd.workers.identity import ProcessIdentity
from pool_managerd.workers.journal import Journal, Stage, WorkerRecord

WORKER = {
    "worker_id": "worker-1",
    "stage": "started",
    "spec": {
        "worker_id": "worker-1",
        "model": "coder",
        "source": "file:/c.gguf",
        "device_ids": ["GPU-1", "GPU-2"],
        "slots": 4,
        "context_per_slot": 8192,
        "cache_type_k": "q8_0",
        "cache_type_v": "q4_0",
        "tensor_split": [2.0, 1.0],
        "reservation_mib": [9000, 4500],
        "engine": "llama_cpp",
    },
    "access_token": "access",
    "ready_token": "ready",
    "process": {"pid": 7, "start_ticks": 8, "boot_id": "boot"},
    "address": "127.0.0.1:9300",
    "load_deadline_s": 61.0,
    "stall_s": 31.0,
    "start_time": "2026-01-02T03:04:05+00:00",
    "ready_time": "2026-01-02T03:04:06+00:00",
}

RECORD = WorkerRecord(
    worker_id="worker-1",
    stage=Stage.STARTED,
    spec=WorkerSpec(
        worker_id="worker-1",
        model="coder",
        source="file:/c.gguf",
        device_ids=("GPU-1", "GPU-2"),
        slots=4,
        context_per_slot=8192,
        cache_type_k=CacheType.Q8_0,
        cache_type_v=CacheType.Q4_0,
        tensor_split=(2.0, 1.0),
        reservation_mib=(9000, 4500),
        engine="llama_cpp",
    ),
    access_token="access",
    ready_token="ready",
    process=ProcessIdentity(pid=7, start_ticks=8, boot_id="boot"),
    address="127.0.0.1:9300",
    load_deadline_s=61.0,
    stall_s=31.0,
    start_time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    ready_time=datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC),
)


def test_a_record_of_a_worker_keeps_its_names(tmp_path: Path) -> None:
    journal, path = Journal(tmp_path), tmp_path / "worker-1.json"
    path.write_text(json.dumps(WORKER))
    assert journal.read_all() == [RECORD]
    journal.write(RECORD)
    assert json.loads(path.read_text()) == WORKER


def test_stages_and_types_of_caches_are_stored_by_values_that_stay() -> None:
    assert {stage.value for stage in Stage} == {"intended", "started", "stopping", "ended", "refused"}
    assert {kind.value for kind in CacheType} == {"f16", "q8_0", "q4_0"}


@pytest.mark.parametrize("missing", sorted(WORKER))
def test_a_record_of_a_worker_that_lacks_a_field_is_told_and_not_completed(
    tmp_path: Path, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "worker-1.json").write_text(json.dumps({name: WORKER[name] for name in WORKER if name != missing}))
    assert Journal(tmp_path).read_all() == []
    assert "worker_record_unreadable" in (told := capsys.readouterr().out)
    assert missing in told


def test_the_authority_keeps_its_names(tmp_path: Path) -> None:
    path = tmp_path / "control.json"
    with ControlGuard(path).applying(CommandHeader("home", 5, 1)):
        pass
    assert json.loads(path.read_text()) == {"cluster_id": "home", "control_epoch": 5}


@pytest.mark.parametrize("text", ['{"cluster_id": "home"}', '{"control_epoch": 5}', "[]", "{"])
def test_an_authority_that_lacks_a_field_is_refused_and_not_completed(tmp_path: Path, text: str) -> None:
    (tmp_path / "control.json").write_text(text)
    with pytest.raises(FailedPrecondition, match="does not hold what this program writes there") as refused:
        ControlGuard(tmp_path / "control.json")
    assert refused.value.reason is Reason.STORE_FAILED


def test_a_file_that_is_coming_keeps_its_names(tmp_path: Path) -> None:
    url = "https://models.test/c.gguf"
    part = PartFile(tmp_path, "key")
    part.open()
    part.restart(PartState(url, '"etag"', total=10))
    part.append([b"12345"])
    part.close()
    path = tmp_path / "key.json"
    stored = {"url": url, "validator": '"etag"', "total": 10, "certain": 5}
    assert json.loads(path.read_text()) == stored
    for missing in (None, *stored):
        path.write_text(json.dumps({name: value for name, value in stored.items() if name != missing}))
        (tmp_path / "key.part").write_bytes(b"12345")
        again = PartFile(tmp_path, "key")
        again.open()
        again.resume(url)
        assert again.length == (5 if missing is None else 0)
        again.drop()
