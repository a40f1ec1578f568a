"""A file that is still coming: what is on disk of it, how much of that is certain, and its digest so far.

Beside `KEY.part` lies `KEY.json`, which says how many bytes of it the disk is known to have: only these are gone on
with, because after a loss of power a file may be longer than what was ever written to it. All of this blocks on the
disk; call it in a thread, one call at a time.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pool_managerd.durable_file import sync_folder, write_durably
from pool_managerd.models.gguf import ENOUGH_TO_TELL

SYNC_EVERY_BYTES = 64 * 2**20
_READ_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class PartState:
    """`validator` is the ETag of the file that the bytes are of; empty if the server has none that is good for that.
    `total` is None where no server has told it.
    """

    url: str
    validator: str = ""
    total: int | None = None
    certain: int = 0


class PartFile:
    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / f"{key}.part"
        self._record = folder / f"{key}.json"
        self._digest = hashlib.sha256()
        self._file = -1
        self._unsynced = 0
        self.length = 0
        self.head = b""
        self.state = PartState("")

    def open(self) -> None:
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Keeps what came; the caller drops before what it does not want any more. Idempotent."""
        if self._file >= 0:
            try:
                self.sync()
            finally:
                self._close()

    def resume(self, url: str) -> None:
        """Resumes what is certain of an earlier download of this URL, if anything. Reads all of it, which may take
        long: the caller may stop waiting for it, and it ends when the file is closed.
        """
        state = _read(self._record)
        if state.url != url:
            self.restart(PartState(url))
            return
        os.ftruncate(self._file, min(state.certain, os.fstat(self._file).st_size))
        self._forget_content()
        self.state = state
        while piece := os.pread(self._file, _READ_BYTES, self.length):
            self._take(piece)

    def restart(self, state: PartState) -> None:
        os.ftruncate(self._file, 0)
        self._forget_content()
        self.state = state

    def append(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            written = 0
            while written < len(piece):
                written += os.pwrite(self._file, piece[written:], self.length + written)
            self._take(piece)
            self._unsynced += len(piece)
        if self._unsynced >= SYNC_EVERY_BYTES:
            self.sync()

    def sync(self) -> None:
        """Makes all bytes that were written so far certain (fsync)."""
        os.fsync(self._file)
        self._unsynced = 0
        self.state = replace(self.state, certain=self.length)
        write_durably(self._record, _to_json(self.state))

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def move_to(self, target: Path) -> None:
        """The file is whole: it gets its name, once the disk has all of it. An equal one may be there already."""
        os.fsync(self._file)
        os.fchmod(self._file, 0o444)
        self._close()
        self.path.replace(target)
        sync_folder(target.parent)
        self._record.unlink(missing_ok=True)

    def drop(self) -> None:
        self._close()
        self.path.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)

    def _take(self, content: bytes) -> None:
        if len(self.head) < ENOUGH_TO_TELL:
            self.head += content[: ENOUGH_TO_TELL - len(self.head)]
        self._digest.update(content)
        self.length += len(content)

    def _forget_content(self) -> None:
        self._digest = hashlib.sha256()
        self.length, self.head, self._unsynced = 0, b"", 0

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _to_json(state: PartState) -> dict[str, Any]:
    """These names stay: the next release reads them."""
    return {"url": state.url, "validator": state.validator, "total": state.total, "certain": state.certain}


def _read(record: Path) -> PartState:
    """None where it can't be read: the download begins anew."""
    try:
        fields = json.loads(record.read_text())
        return PartState(
            url=fields["url"], validator=fields["validator"], total=fields["total"], certain=fields["certain"]
        )
    except (OSError, KeyError, ValueError, TypeError):
        return PartState("")
