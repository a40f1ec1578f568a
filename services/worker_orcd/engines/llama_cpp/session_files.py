"""Sequences of sessions on the disk of the host, from one worker to the next one of the same fingerprint.

A file holds what a person wrote, and what native code will take for memory of its own. So it is its owner's alone, and
nothing of it reaches the engine before a keyed code over all of it, its name included, was found right.

The file: a magic line, five numbers (8 bytes each), the token ids (4 bytes each), the state as the engine wrote it, and
the code (BLAKE2b, keyed, of the file's session and fingerprint and all that stands before it). Numbers are
little-endian. A file is kept until the time of its last modification, which lies ahead.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b, sha256
from hmac import compare_digest
from itertools import chain
from math import inf
from pathlib import Path
from secrets import token_hex
from struct import Struct
from tempfile import mkstemp
from typing import BinaryIO
from zlib import crc32

import numpy as np
import psutil

from llorch.clock import Clock
from llorch.logs import get_logger
from llorch.saved_sessions import SAVE_WITHIN_S, SUFFIX, WRITTEN_AS, files_of, remove_beyond
from worker_orcd.engine_info import Fingerprint
from worker_orcd.engines.llama_cpp.host_cache import SavedSequence, State
from worker_orcd.engines.llama_cpp.sessions_on_disk import SessionsOnDisk

_MAGIC = b"llama-orch kv 1\n"
_HEADER = Struct("<16s5q")
"""The magic line; how many tokens, first_position, watermark, bytes of the state, its CRC-32."""

_CODE_BYTES = 32
_PIECE_BYTES = 16 * 2**20
"""Written at once; after each one it is known how fast the disk is."""

_FREE_PART = 0.1
"""Of the disk stays free."""

_PART_OF_MEMORY = 0.5
"""Of what the host has left, for a state between the disk and the engine."""


_LEAST_S = 1e-6
_LOCK_AGAIN_S = 0.05
_log = get_logger("llama.cpp")


@dataclass(frozen=True, slots=True, eq=False)
class SavedHead:
    """What a file says of itself, unproven: good for choosing one."""

    path: Path
    tokens: list[int]
    first_position: int
    watermark: int
    state_bytes: int
    checksum: int

    @property
    def state_begins(self) -> int:
        return _HEADER.size + 4 * len(self.tokens)


@dataclass(frozen=True, slots=True)
class Worth:
    """A sequence is kept for `keep_s`. It has to be written in less than `prefill_s`, or evaluating it again is no
    slower, and by `until`, on the monotonic clock.
    """

    keep_s: float
    prefill_s: float
    until: float


def name_of_kind(fingerprint: Fingerprint, slots: int) -> str:
    """States are exchanged between workers of the same name. The number of slots changes no answer, but the library
    says in a state how many there are, and refuses one that says another number.
    """
    facts = {**asdict(fingerprint), "slots": slots}
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


class SessionFiles:
    """Of one worker. Its methods block, and may be called on any thread; what the disk refuses is logged and costs no
    more than evaluating again.
    """

    def __init__(self, place: SessionsOnDisk, fingerprint: Fingerprint, slots: int, clock: Clock) -> None:
        self._place = place
        self._kind = name_of_kind(fingerprint, slots)
        self._clock = clock
        self._bytes_per_s = inf
        """What the disk took last."""

    def heads(self, session: str) -> list[SavedHead]:
        """What there is of a session."""
        files = files_of(self._place.folder, f"{session}.{self._kind}")
        return [head for file in files if (head := _read_head(file.path)) is not None]

    def take(self, head: SavedHead) -> SavedSequence | None:
        """Reads it and removes it, whatever it is worth: what fails once would fail again. None unless all is right."""
        try:
            try:
                return self._proven(head.path)
            finally:
                head.path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("saved_session_not_read", error=error.strerror)
            return None

    def wants(self, tokens: int, state_bytes: int, worth: Worth) -> bool:
        """False if it is known, before the state is read from its device, that it will not be written."""
        size = _size(tokens, state_bytes)
        return (
            self._clock.monotonic() < worth.until
            and self._is_sooner_written(size, worth)
            and size <= min(self._place.budget_bytes, _PART_OF_MEMORY * psutil.virtual_memory().available)
        )

    def write(self, session: str, saved: SavedSequence, worth: Worth) -> bool:
        """Whether it is there now. Takes the place of what it continues, and if room is short, of what ends sooner than
        it will.
        """
        try:
            with self._only_writer(worth.until) as may_write:
                return may_write and self._write(session, saved, worth)
        except OSError as error:
            _log.warning("session_not_saved", error=error.strerror)
            return False

    def _write(self, session: str, saved: SavedSequence, worth: Worth) -> bool:
        tokens, state = saved.tokens, saved.state
        numbers = (len(tokens), saved.first_position, saved.watermark, state.nbytes, crc32(state.data))
        beginning = _HEADER.pack(_MAGIC, *numbers) + np.array(tokens, "<i4").tobytes()
        size = _size(len(tokens), state.nbytes)
        if not self._is_sooner_written(size, worth) or not self._make_room(size, worth.keep_s):
            return False
        outdated = [head.path for head in self.heads(session) if _begins_with(tokens, head.tokens)]
        descriptor, beside = mkstemp(suffix=WRITTEN_AS.lstrip("*"), dir=self._place.folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if not self._write_pieces(file, session, beginning, state, worth):
                    return False
            now = time.time()  # the clock of files
            os.utime(beside, (now, now + worth.keep_s))
            Path(beside).rename(self._place.folder / f"{session}.{self._kind}.{token_hex(8)}{SUFFIX}")
            for path in outdated:
                path.unlink(missing_ok=True)
            return True
        finally:
            Path(beside).unlink(missing_ok=True)

    def _is_sooner_written(self, size: int, worth: Worth) -> bool:
        return size < worth.prefill_s * self._bytes_per_s

    def _write_pieces(self, file: BinaryIO, session: str, beginning: bytes, state: State, worth: Worth) -> bool:
        """False once it is known that it takes too long. Each piece is on the disk before the next one is begun, so
        that the disk's speed is measured and not that of the memory before it.
        """
        code = self._code(session)
        began_at, written, size = self._clock.monotonic(), 0, len(beginning) + state.nbytes
        pieces: Iterable[bytes | memoryview] = chain([beginning], _pieces_of(state))
        for piece in pieces:
            code.update(piece)
            file.write(piece)
            file.flush()
            os.fdatasync(file.fileno())
            written += len(piece)
            self._bytes_per_s = written / max(self._clock.monotonic() - began_at, _LEAST_S)
            expected_s = size / self._bytes_per_s
            if written > len(beginning) and (expected_s >= worth.prefill_s or began_at + expected_s > worth.until):
                _log.info("session_not_worth_saving", expected_s=expected_s, prefill_s=worth.prefill_s)
                return False
        file.write(code.digest())
        return True

    def _proven(self, path: Path) -> SavedSequence | None:
        content = _whole(path)
        if content is None:
            return None
        session = path.name.partition(".")[0]
        code = self._code(session)
        code.update(content[:-_CODE_BYTES].data)
        head = _head_in(path, content.nbytes, lambda at, count: content[at : at + count].tobytes())
        if head is None or not compare_digest(code.digest(), content[-_CODE_BYTES:].tobytes()):
            _warn("it is not what a worker of this host wrote")
            return None
        state = content[head.state_begins : -_CODE_BYTES]
        if crc32(state.data) != head.checksum:
            _warn("its checksum is another")
            return None
        return SavedSequence(head.tokens, state, head.first_position, head.watermark, session)

    def _code(self, session: str) -> blake2b:
        return blake2b(f"{session} {self._kind}\n".encode(), key=self._place.key, digest_size=_CODE_BYTES)

    def _make_room(self, size: int, keep_s: float) -> bool:
        """Of what ends sooner. Of what is saved at one time the first is wanted most, of a session the longest."""
        folder, budget = self._place.folder, self._place.budget_bytes
        disk = shutil.disk_usage(folder)
        if size > budget or size > disk.free - _FREE_PART * disk.total:
            return False
        kept = files_of(folder)
        sooner_than = time.time() + keep_s - SAVE_WITHIN_S
        wanted_less = [file for file in kept if file.ends_at < sooner_than]
        room = budget - size - sum(file.size_bytes for file in kept if file.ends_at >= sooner_than)
        if room < 0:
            return False
        remove_beyond(wanted_less, room)
        return True

    @contextmanager
    def _only_writer(self, until: float) -> Iterator[bool]:
        """One of all workers of the host: they share the budget, and the disk is no faster for two. The kernel lets the
        next one in where this process dies.
        """
        lock = os.open(self._place.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            yield self._locked(lock, until)
        finally:
            os.close(lock)

    def _locked(self, lock: int, until: float) -> bool:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            if self._clock.monotonic() + _LOCK_AGAIN_S >= until:
                return False
            time.sleep(_LOCK_AGAIN_S)


def _size(tokens: int, state_bytes: int) -> int:
    return _HEADER.size + 4 * tokens + state_bytes + _CODE_BYTES


def _warn(why: str) -> None:
    _log.warning("saved_session_refused", why=why)


def _pieces_of(state: State) -> Iterator[memoryview]:
    """Without a copy."""
    whole = state.data.cast("B")
    return (whole[at : at + _PIECE_BYTES] for at in range(0, state.nbytes, _PIECE_BYTES))


def _begins_with(tokens: list[int], beginning: list[int]) -> bool:
    return tokens[: len(beginning)] == beginning


def _read_head(path: Path) -> SavedHead | None:
    try:
        with path.open("rb") as file:
            descriptor = file.fileno()
            return _head_in(path, os.fstat(descriptor).st_size, lambda at, count: os.pread(descriptor, count, at))
    except OSError:  # its time was over just now
        return None


def _head_in(path: Path, size: int, read: Callable[[int, int], bytes]) -> SavedHead | None:
    """None for what is no such file. `read` gives so many bytes from a position on. A file of a later release has
    another magic line.
    """
    if size < _HEADER.size:
        return None
    magic, count, first, watermark, state_bytes, checksum = _HEADER.unpack(read(0, _HEADER.size))
    if magic != _MAGIC or min(count, state_bytes) < 1 or _size(count, state_bytes) != size:
        return None
    tokens = np.frombuffer(read(_HEADER.size, 4 * count), "<i4").tolist()
    return SavedHead(path, tokens, first, watermark, state_bytes, checksum)


def _whole(path: Path) -> State | None:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > _PART_OF_MEMORY * psutil.virtual_memory().available:
            _warn(f"the host has not twice the memory that its {size // 2**20} MiB take")
            return None
        content = np.fromfile(file, np.uint8, size)
    return content if content.nbytes == size > _CODE_BYTES else None
