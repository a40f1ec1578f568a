"""Reading a model's files ahead of its load, and what is told of it."""

import ctypes
import mmap
import os
import time
from pathlib import Path

import pytest

from llorch.background import TaskSupervisor
from llorch.gguf.model_file import read_model
from pool_managerd.models import read_ahead as module
from pool_managerd.models.located_model import LocatedModel
from pool_managerd.models.read_ahead import ReadAhead, Stop, files_of, read_ahead
from pool_managerd.models.reading import Reading
from support.models import model_bytes
from support.worker_host import eventually


def cold_file(path: Path, size: int) -> Path:
    """One that memory does not hold. The kernel forgets it when no other processor is about to use its pages."""
    path.write_bytes(model_bytes(size))
    descriptor = os.open(path, os.O_RDWR)
    os.fsync(descriptor)
    deadline = time.monotonic() + 60
    while _is_in_memory(descriptor):
        assert time.monotonic() < deadline, "the kernel does not forget the file"
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    return path


def _is_in_memory(descriptor: int) -> bool:
    """Whether any page of it is. The kernel is asked (`mincore`): a read, even one that may not wait, makes the kernel
    fetch what it looks at and more, so that the file would be warm again by being looked at.
    """
    size = os.fstat(descriptor).st_size
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    with mmap.mmap(descriptor, size) as view:
        begin = ctypes.c_char.from_buffer(view)
        failed = ctypes.CDLL(None, use_errno=True).mincore(ctypes.byref(begin), ctypes.c_size_t(size), pages)
        del begin  # the map can't be closed while it is looked at
    assert not failed, os.strerror(ctypes.get_errno())
    return any(page & 1 for page in pages)


@pytest.mark.req("POOL-2012")
def test_what_was_read_is_in_memory_the_next_time(tmp_path: Path) -> None:
    path = cold_file(tmp_path / "x.gguf", 20 * 2**20)
    first = read_ahead([path])
    second = read_ahead([path])
    size = path.stat().st_size
    assert first.file_bytes == second.file_bytes == size
    assert second.cached_bytes >= 0.9 * size
    assert first.cached_bytes < second.cached_bytes, "the kernel forgot nothing: this proves nothing"


@pytest.mark.req("POOL-2012")
def test_the_speed_of_the_disk_is_told_where_enough_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ENOUGH_TO_TELL_BYTES", 2**20)
    path = cold_file(tmp_path / "x.gguf", 10 * 2**20)
    cold, warm = read_ahead([path]), read_ahead([path])
    assert cold.bytes_per_s is not None
    assert cold.bytes_per_s > 0
    assert warm.bytes_per_s is None


def test_all_files_of_a_split_model_are_read(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"x-0000{number + 1}-of-00002.gguf").write_bytes(model_bytes(split=(number, 2)))
    paths = files_of(tmp_path / "x-00001-of-00002.gguf")
    assert read_ahead(paths).file_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_no_more_is_read_than_memory_has_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(model_bytes(30 * 2**20))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert module._read(descriptor, 10 * 2**20, Stop()) < 20 * 2**20
        assert module._read(descriptor, 30 * 2**20, Stop(is_set=True)) == 0
    finally:
        os.close(descriptor)


async def test_a_model_is_read_once_for_all_who_load_it(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(model_bytes())
    model = LocatedModel("file:x", path, read_model(path))
    told: list[tuple[str, Reading]] = []
    async with TaskSupervisor("test") as tasks:
        ahead = ReadAhead(tasks, lambda source, reading: told.append((source, reading)))
        ahead.begin(model)
        ahead.begin(model)
        await eventually(lambda: bool(told))
        assert [source for source, _ in told] == ["file:x"]
        ahead.begin(model)
        await eventually(lambda: len(told) == 2)


async def test_a_file_that_vanished_is_left_to_the_worker(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(model_bytes())
    model = LocatedModel("file:x", path, read_model(path))
    path.unlink()
    async with TaskSupervisor("test") as tasks:
        ahead = ReadAhead(tasks, lambda *_: pytest.fail("nothing was read"))
        ahead.begin(model)
        await eventually(lambda: not ahead._wanted)
