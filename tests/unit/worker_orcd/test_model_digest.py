"""Digests of model files: computed once per state of a file."""

import os
from hashlib import sha256
from pathlib import Path

import pytest

from worker_orcd.engines.llama_cpp import model_digest
from worker_orcd.engines.llama_cpp.model_digest import ModelDigest

CONTENT = bytes(range(256)) * 9000  # more than two pieces


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "digests" / "deep"


def compute(path: Path, folder: Path | None = None) -> str:
    return ModelDigest(path, folder, lambda: True).wait()


def test_it_is_that_of_the_whole_file(model: Path) -> None:
    assert compute(model) == sha256(CONTENT).hexdigest()


def test_it_is_remembered_until_the_file_changes(model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = compute(model, folder)
    with monkeypatch.context() as patched:
        patched.setattr(model_digest, "_PIECE_BYTES", 0)  # nothing can be read
        assert compute(model, folder) == digest
    model.write_bytes(CONTENT[::-1])
    assert compute(model, folder) == sha256(CONTENT[::-1]).hexdigest()


def test_a_file_of_the_same_size_and_time_in_its_place_is_noticed(model: Path, folder: Path) -> None:
    compute(model, folder)
    times = model.stat()
    other = model.with_name("other")
    other.write_bytes(CONTENT[::-1])
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(model)
    assert compute(model, folder) == sha256(CONTENT[::-1]).hexdigest()


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"identity": 1, "sha256": "x"}', b"\xff"])
def test_a_damaged_memory_is_computed_again(model: Path, folder: Path, damage: bytes) -> None:
    digest = compute(model, folder)
    for kept in folder.iterdir():
        kept.write_bytes(damage)
    assert compute(model, folder) == digest


def test_nothing_is_said_of_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    assert compute(tmp_path / "none.gguf") == ""


def test_a_load_that_is_given_up_ends_it(model: Path, folder: Path) -> None:
    assert ModelDigest(model, folder, lambda: False).wait() == ""
    assert not folder.exists()


def test_a_folder_that_can_not_be_written_costs_nothing_but_time(model: Path) -> None:
    assert compute(model, Path("/proc/nothing")) == sha256(CONTENT).hexdigest()


def test_what_was_being_kept_when_a_worker_was_killed_is_removed(model: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "tmpleft").touch()
    os.utime(folder / "tmpleft", (1, 1))
    compute(model, folder)
    assert [path.suffix for path in folder.iterdir()] == [".json"]


def test_digests_of_the_latest_files_are_remembered_and_nothing_else_stays(
    model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_digest, "_MOST_KEPT", 2)
    compute(model, folder)
    (folder / "tmp-of-a-killed-process").touch()
    for number, file in enumerate(sorted(folder.iterdir())):
        os.utime(file, (number, number))
    for name in ("b.gguf", "c.gguf"):
        model.with_name(name).write_bytes(CONTENT)
        compute(model.with_name(name), folder)
    assert len(list(folder.iterdir())) == 2
    with monkeypatch.context() as patched:
        patched.setattr(model_digest, "_PIECE_BYTES", 0)  # nothing can be read
        assert compute(model.with_name("c.gguf"), folder) == sha256(CONTENT).hexdigest()
