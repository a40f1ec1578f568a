"""A disk that a test watches and times (disk_shim.c), and what a power cut may leave of it.

A record of the trace is a change of a file below the watched folder, once it was made: C created, W written, T cut or
grown to a size, S synced, which may be a folder, U unlinked. A record that stands after S was made after it.
"""

import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cache
from pathlib import Path
from random import Random

SOURCE = Path(__file__).with_suffix(".c")
SECTOR = 512
"""The most that a disk writes whole, or not at all."""

_OF_A_WRITER = 5
"""A thread with fewer groups opens the database, or closes it."""

_HEAD = struct.Struct("=cIHQI")


@dataclass(frozen=True, slots=True)
class Change:
    kind: str
    path: str
    offset: int
    data: bytes
    thread: int = 0
    """Which has made it."""


@dataclass(frozen=True)
class DiskShim:
    """For processes that are started with its `environment`. `sync_ms`: how long each fsync takes; None: as long as the
    disk of this machine needs.
    """

    work: Path
    """For its library and its trace; not below `folder`."""
    folder: Path
    sync_ms: int | None = None

    def environment(self) -> Mapping[str, str]:
        library = self.work / "disk_shim.so"
        library.write_bytes(_compiled())
        timed = {} if self.sync_ms is None else {"DISK_SHIM_SYNC_MS": str(self.sync_ms)}
        return timed | {
            "LD_PRELOAD": str(library),
            "DISK_SHIM_FOLDER": str(self.folder),
            "DISK_SHIM_TRACE": str(self._trace),
            "DISK_SHIM_FULL": str(self._full),
        }

    def run(self, module: str, *arguments: object, within_s: float) -> str:
        """What a program of `support` prints that gets the folder and the arguments."""
        command = [sys.executable, "-m", f"support.{module}", str(self.folder), *map(str, arguments)]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **self.environment()}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=within_s, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fill(self) -> None:
        """From now on the disk takes half of each write and says that it is full, until `make_room`."""
        self._full.touch()

    def make_room(self) -> None:
        self._full.unlink(missing_ok=True)

    def changes(self) -> Iterator[Change]:
        """All so far. The last record may be half there while a process still writes."""
        recorded = memoryview(self._trace.read_bytes())
        at = 0
        while at + _HEAD.size <= len(recorded):
            kind, thread, path_bytes, offset, data_bytes = _HEAD.unpack_from(recorded, at)
            path_at = at + _HEAD.size
            data_at = path_at + path_bytes
            at = data_at + data_bytes
            if at > len(recorded):
                return
            path, data = bytes(recorded[path_at:data_at]).decode(), bytes(recorded[data_at:at])
            yield Change(kind.decode(), path, offset, data, thread)

    @property
    def _trace(self) -> Path:
        return self.work / "disk.trace"

    @property
    def _full(self) -> Path:
        return self.work / "disk.full"


class Left(Enum):
    """What is left of the changes that were not synced."""

    NOTHING = auto()
    ALL = auto()
    SOME = auto()
    """Some of the writes, each as a whole."""
    TORN = auto()
    """Some of the sectors."""


class Disk:
    """Which bytes are certainly there, and which perhaps, while changes come."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._synced_names: dict[str, _File] = {}
        self._names_not_synced: list[tuple[str, _File | None]] = []
        """New and unlinked ones, which reach the disk in this order."""

    def apply(self, change: Change) -> None:
        path = change.path
        if change.kind == "C":
            self._name(path, _File())
        elif change.kind == "U":
            self._name(path, None)
        elif change.kind == "S" and path not in self._files:  # a folder
            self._sync_names(path)
        elif change.kind == "S":
            self._files[path].sync()
        else:
            self._files[path].not_synced.append(change)

    def lose_power(self, left: Left, chance: Random) -> dict[str, bytes]:
        """The files that are found afterwards, by path."""
        names = dict(self._synced_names)
        for path, file in self._names_not_synced[: _how_many(len(self._names_not_synced), left, chance)]:
            _set(names, path, file)
        return {path: file.found(left, chance) for path, file in names.items()}

    def present(self) -> dict[str, bytes]:
        """The files as they are, without a power cut."""
        return {path: file.found(Left.ALL, Random(0)) for path, file in self._files.items()}  # noqa: S311  not used

    def _name(self, path: str, file: "_File | None") -> None:
        _set(self._files, path, file)
        self._names_not_synced.append((path, file))

    def _sync_names(self, folder: str) -> None:
        left = []
        for path, file in self._names_not_synced:
            if str(Path(path).parent) == folder:
                _set(self._synced_names, path, file)
            else:
                left.append((path, file))
        self._names_not_synced = left


@dataclass(slots=True)
class _File:
    synced: bytearray = field(default_factory=bytearray)
    not_synced: list[Change] = field(default_factory=list)

    def sync(self) -> None:
        for change in self.not_synced:
            _carry_out(change, self.synced)
        self.not_synced.clear()

    def found(self, left: Left, chance: Random) -> bytes:
        content = bytearray(self.synced)
        for change in self.not_synced:
            for part in _sectors(change) if left is Left.TORN else (change,):
                if left is Left.ALL or (left is not Left.NOTHING and chance.random() < 0.5):
                    _carry_out(part, content)
        return bytes(content)


def syncs_of_groups(changes: Iterable[Change]) -> Counter[int]:
    """How many groups of writes to an SQLite database had to wait for the disk so often.

    A group is there with the first sync of the log after pages were written to it. What its thread waits for after that
    is the next group's; what other threads wait for, such as for a checkpoint, is no group's.
    """
    groups: dict[int, Counter[int]] = defaultdict(Counter)
    syncs: Counter[int] = Counter()
    has_pages: set[int] = set()
    for change in changes:
        is_log = change.path.endswith("-wal")
        syncs[change.thread] += change.kind == "S"
        if is_log and change.kind == "W" and change.offset > 0:
            has_pages.add(change.thread)
        elif is_log and change.kind == "S" and change.thread in has_pages:
            groups[change.thread][syncs.pop(change.thread)] += 1
            has_pages.discard(change.thread)
    return sum((of_thread for of_thread in groups.values() if of_thread.total() >= _OF_A_WRITER), Counter())


def write_files(files: Mapping[str, bytes], from_folder: Path, to_folder: Path) -> None:
    """In place of what is in `to_folder`."""
    shutil.rmtree(to_folder, ignore_errors=True)
    to_folder.mkdir(parents=True)
    for path, content in files.items():
        target = to_folder / Path(path).relative_to(from_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _set(names: "dict[str, _File]", path: str, file: "_File | None") -> None:
    if file is None:
        names.pop(path, None)
    else:
        names[path] = file


def _how_many(count: int, left: Left, chance: Random) -> int:
    if left is Left.NOTHING:
        return 0
    return count if left is Left.ALL else chance.randint(0, count)


def _sectors(change: Change) -> Iterator[Change]:
    if change.kind != "W":
        yield change
        return
    at = 0
    while at < len(change.data):
        size = SECTOR - (change.offset + at) % SECTOR
        yield Change("W", change.path, change.offset + at, change.data[at : at + size])
        at += size


def _carry_out(change: Change, content: bytearray) -> None:
    size = change.offset if change.kind == "T" else max(len(content), change.offset + len(change.data))
    content.extend(bytes(max(0, size - len(content))))
    if change.kind == "T":
        del content[size:]
    else:
        content[change.offset : change.offset + len(change.data)] = change.data


@cache
def _compiled() -> bytes:
    """Needs a C compiler, as the set-up of this project does."""
    command = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "disk_shim.so"
        done = subprocess.run([*command, "-o", made, SOURCE, "-ldl"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return made.read_bytes()
