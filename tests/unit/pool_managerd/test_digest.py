"""Files of models are read again, whole and honestly."""

import hashlib
from pathlib import Path

import pytest

from llorch.errors import FailedPrecondition, Reason
from llorch.gguf.model_file import read_model
from pool_managerd.models import digest
from pool_managerd.models.digest import DigestProgress, read_digest
from pool_managerd.models.located_model import LocatedModel
from support.gguf_writer import smallest_model


def located(path: Path) -> LocatedModel:
    return LocatedModel("file:x", path, read_model(path))


async def readings(path: Path) -> list[DigestProgress]:
    return [reading async for reading in read_digest(located(path))]


async def test_the_digest_is_of_every_byte_and_tells_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(smallest_model())
    size = path.stat().st_size
    monkeypatch.setattr(digest, "_PIECE_BYTES", 16)
    monkeypatch.setattr(digest, "_AT_ONCE_BYTES", 32)
    found = await readings(path)
    assert found[-1] == DigestProgress(size, hashlib.sha256(path.read_bytes()).hexdigest())
    assert [reading.done_bytes for reading in found[:-2]] == list(range(32, size, 32))
    assert not any(reading.digest for reading in found[:-1])


async def test_a_changed_byte_gives_another_digest(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(smallest_model())
    before = (await readings(path))[-1].digest
    path.write_bytes(smallest_model()[:-1] + b"\xff")
    assert (await readings(path))[-1].digest != before


async def test_a_file_that_can_not_be_read_is_told_without_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(smallest_model())
    model = located(path)

    def refuses(_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(digest, "FileIO", refuses)
    with pytest.raises(FailedPrecondition, match=r"^model\.gguf can't be read: Input/output error$") as refused:
        _ = [reading async for reading in read_digest(model)]
    assert refused.value.reason is Reason.MODEL_FILE_INVALID
