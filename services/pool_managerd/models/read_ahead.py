"""Reads a model's files into the page cache while its worker starts: the disk works while a process still imports.

The kernel keeps what was read until programs need the memory: a model that was loaded lately comes from there.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from llorch.background import TaskSupervisor
from llorch.gguf.split_name import split_name
from llorch.logs import get_logger
from pool_managerd.models.located_model import LocatedModel
from pool_managerd.models.reading import Reading

_log = get_logger(__name__)

_MIB = 2**20
_WINDOW_BYTES = 8 * _MIB
_LOOK_EVERY_BYTES = _MIB
_SHARE_OF_MEMORY = 0.8
"""Of what is available: to read more would push out what was just read."""

_ENOUGH_TO_TELL_BYTES = 32 * _MIB
"""From this much on the time that reading took says something about the disk."""


@dataclass(slots=True)
class Stop:
    """Tells the thread that its caller does not need the result any more."""

    is_set: bool = False


class ReadAhead:
    """One model at a time: two at once would only make the disk seek. `done` is called for each, with its reference."""

    def __init__(self, tasks: TaskSupervisor, done: Callable[[str, Reading], None]) -> None:
        self._tasks = tasks
        self._done = done
        self._disk = asyncio.Lock()
        self._wanted: set[str] = set()

    def begin(self, model: LocatedModel) -> None:
        """Returns at once. What is being read already is not read twice."""
        if model.reference not in self._wanted:
            self._wanted.add(model.reference)
            self._tasks.spawn(f"read ahead of {model.reference}", self._run(model))

    async def _run(self, model: LocatedModel) -> None:
        stop = Stop()
        try:
            async with self._disk:
                reading = await asyncio.to_thread(read_ahead, files_of(model.path), stop)
        except OSError as error:
            _log.info("read_ahead_failed", source=model.reference, error=error.strerror)
            return
        finally:
            stop.is_set = True
            self._wanted.discard(model.reference)
        speed = None if reading.bytes_per_s is None else round(reading.bytes_per_s / _MIB)
        _log.info(
            "model_read_ahead",
            source=model.reference,
            file_mib=reading.file_bytes // _MIB,
            cached_mib=reading.cached_bytes // _MIB,
            seconds=round(reading.seconds, 3),
            disk_mib_per_second=speed,
        )
        self._done(model.reference, reading)


def files_of(path: Path) -> list[Path]:
    """All files of a model whose first this is."""
    split = split_name(path.name)
    return [path.with_name(name) for name in split.all()] if split else [path]


def read_ahead(paths: Sequence[Path], stop: Stop | None = None) -> Reading:
    """Blocks until the files were read, or as much of them as memory has room for. Raises OSError."""
    stop = stop or Stop()
    room = int(psutil.virtual_memory().available * _SHARE_OF_MEMORY)
    sizes = [path.stat().st_size for path in paths]
    began, read, cached = time.monotonic(), 0, 0
    for path, size in zip(paths, sizes, strict=True):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            cached += _cached_bytes(descriptor, size)
            read += _read(descriptor, min(size, room - read), stop)
        finally:
            os.close(descriptor)
    seconds = time.monotonic() - began
    from_disk = read - cached
    speed = from_disk / seconds if from_disk >= _ENOUGH_TO_TELL_BYTES and seconds > 0 else None
    return Reading(sum(sizes), cached, seconds, speed)


def _cached_bytes(descriptor: int, size: int) -> int:
    """By samples: a page that memory holds is read at once, another would have to be waited for."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # looking must not make the kernel read ahead
    one = bytearray(1)
    looks = range(0, size, _LOOK_EVERY_BYTES)
    hits = 0
    for offset in looks:
        with suppress(OSError):  # not there; or this file system does not say
            hits += os.preadv(descriptor, [one], offset, os.RWF_NOWAIT)
    return size * hits // len(looks) if looks else 0


def _read(descriptor: int, size: int, stop: Stop) -> int:
    """Announces the next window to the kernel before it reads this one, so that the disk is never idle."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    window = bytearray(min(_WINDOW_BYTES, max(size, 1)))
    offset = 0
    while offset < size and not stop.is_set:
        os.posix_fadvise(descriptor, offset + _WINDOW_BYTES, _WINDOW_BYTES, os.POSIX_FADV_WILLNEED)
        got = os.preadv(descriptor, [window], offset)
        if not got:
            break
        offset += got
    return offset
