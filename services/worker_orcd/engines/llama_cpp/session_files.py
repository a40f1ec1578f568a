"""Sequences of sessions on the disk of the host, from one worker to the next one of the same fingerprint.

A file holds what a person wrote, and what native code will take for memory of its own. So it is its owner's alone, and
nothing of it reaches the engine before a keyed code over all of it, its name included, was found right.

A file is kept until the time of its last modification, which lies ahead.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b, sha256
from math import inf
from pathlib import Path
from secrets import token_hex
from tempfile import mkstemp
from typing import BinaryIO

import psutil

from llorch.clock import Clock
from llorch.logs import get_logger
from llorch.saved_sessions import SAVE_WITHIN_S, SUFFIX, WRITTEN_AS, files_of, remove_beyond, session_of
from worker_orcd.engine_info import Fingerprint
from worker_orcd.engines.llama_cpp.host_cache import SavedSequence, State
from worker_orcd.engines.llama_cpp.session_file import (
    PART_OF_MEMORY,
    NotProven,
    SavedHead,
    beginning_of,
    new_code,
    read_head,
    read_proven,
    size_of,
)
from worker_orcd.engines.llama_cpp.sessions_on_disk import SessionsOnDisk

_PIECE_BYTES = 16 * 2**20
"""Written at once; after each one it is known how fast the disk is."""

_FREE_PART = 0.1
"""Of the disk stays free."""

_NO_TIME = "the time in which a worker may save is over"
_TOO_SLOW = "writing it takes longer than evaluating it again"
_NO_ROOM = "what is wanted more takes saved_sessions_mib, or too little of the disk is free"

_LEAST_S = 1e-6
_LOCK_AGAIN_S = 0.05
_log = get_logger("llama.cpp")


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
        """What the disk took last, of a whole piece or more: of less, most of the time is that of the sync."""

    def heads(self, session: str) -> list[SavedHead]:
        """What there is of a session."""
        files = files_of(self._place.folder, f"{session}.{self._kind}")
        return [head for file in files if (head := read_head(file.path)) is not None]

    def take(self, head: SavedHead) -> SavedSequence | None:
        """Reads it and removes it, whatever it is worth: what fails once would fail again. None unless all is right."""
        session = session_of(head.path)
        try:
            try:
                return read_proven(head.path, self._code(session), session)
            finally:
                head.path.unlink(missing_ok=True)
        except NotProven as refusal:
            _log.warning("saved_session_refused", why=str(refusal))
        except OSError as error:
            _log.warning("saved_session_not_read", error=error.strerror)
        return None

    def wants(self, tokens: int, state_bytes: int, worth: Worth) -> bool:
        """False if it is known, before the state is read from its device, that it will not be written."""
        size = size_of(tokens, state_bytes)
        if self._clock.monotonic() >= worth.until:
            return self._not_saved(size, _NO_TIME)
        if not self._is_sooner_written(size, worth):
            return self._not_saved(size, _TOO_SLOW)
        if size > PART_OF_MEMORY * psutil.virtual_memory().available:
            return self._not_saved(size, "the host has not twice the memory that it takes")
        return size <= self._place.budget_bytes or self._not_saved(size, _NO_ROOM)

    def write(self, session: str, saved: SavedSequence, worth: Worth) -> bool:
        """Whether it is there now. Takes the place of what it continues, and if room is short, of what ends sooner than
        it will.
        """
        try:
            with self._only_writer(worth.until) as may_write:
                return self._write(session, saved, worth) if may_write else self._not_saved(saved.size, _NO_TIME)
        except OSError as error:
            return self._not_saved(saved.size, f"the disk refused it: {error.strerror}")

    def _write(self, session: str, saved: SavedSequence, worth: Worth) -> bool:
        size = size_of(len(saved.tokens), saved.state.nbytes)
        if not self._is_sooner_written(size, worth):
            return self._not_saved(size, _TOO_SLOW)
        if not self._make_room(size, worth.keep_s):
            return self._not_saved(size, _NO_ROOM)
        outdated = [head.path for head in self.heads(session) if _begins_with(saved.tokens, head.tokens)]
        descriptor, beside = mkstemp(suffix=WRITTEN_AS.lstrip("*"), dir=self._place.folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if not self._write_pieces(file, session, saved, worth):
                    return self._not_saved(size, _TOO_SLOW)
            now = time.time()  # the clock of files
            os.utime(beside, (now, now + worth.keep_s))
            Path(beside).rename(self._place.folder / f"{session}.{self._kind}.{token_hex(8)}{SUFFIX}")
            for path in outdated:
                path.unlink(missing_ok=True)
            return True
        finally:
            Path(beside).unlink(missing_ok=True)

    @staticmethod
    def _not_saved(size: int, why: str) -> bool:
        """False, as an answer; the operator finds the reason in the worker's log."""
        _log.info("session_not_saved", mib=-(-size // 2**20), why=why)
        return False

    def _is_sooner_written(self, size: int, worth: Worth) -> bool:
        return size < worth.prefill_s * self._bytes_per_s

    def _write_pieces(self, file: BinaryIO, session: str, saved: SavedSequence, worth: Worth) -> bool:
        """False once it is known that it takes too long. Each piece is on the disk before the next one is begun, so
        that the disk's speed is measured and not that of the memory before it.
        """
        code, beginning = self._code(session), beginning_of(saved)
        began_at, written, size = self._clock.monotonic(), len(beginning), len(beginning) + saved.state.nbytes
        code.update(beginning)
        file.write(beginning)
        for piece in _pieces_of(saved.state):
            code.update(piece)
            file.write(piece)
            file.flush()
            os.fdatasync(file.fileno())
            written += len(piece)
            spent_s = max(self._clock.monotonic() - began_at, _LEAST_S)
            if written >= _PIECE_BYTES:
                self._bytes_per_s = written / spent_s
            expected_s = spent_s * size / written
            if expected_s >= worth.prefill_s or began_at + expected_s > worth.until:
                return False
        file.write(code.digest())
        return True

    def _code(self, session: str) -> blake2b:
        return new_code(self._place.key, session, self._kind)

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


def _pieces_of(state: State) -> Iterator[memoryview]:
    """Without a copy."""
    whole = state.data.cast("B")
    return (whole[at : at + _PIECE_BYTES] for at in range(0, state.nbytes, _PIECE_BYTES))


def _begins_with(tokens: list[int], beginning: list[int]) -> bool:
    return tokens[: len(beginning)] == beginning
