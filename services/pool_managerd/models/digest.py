"""The digest of a model's files, read from the disk again."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from llorch.errors import FailedPrecondition, Reason
from llorch.gguf.model_file import files_of
from pool_managerd.models.located_model import LocatedModel

_PIECE_BYTES = 4 * 2**20
_AT_ONCE_BYTES = 256 * 2**20
"""Read between two words about how far it is; a fraction of a second."""


@dataclass(frozen=True, slots=True)
class DigestProgress:
    """How far it is; with the digest in hexadecimal when everything was read."""

    done_bytes: int
    digest: str = ""


async def read_digest(model: LocatedModel) -> AsyncGenerator[DigestProgress, None]:
    """SHA-256 over all files of the model, one after the other. The last of what it yields has the digest.

    Raises `FailedPrecondition` (MODEL_FILE_INVALID) if a file can't be read.
    """
    digest = hashlib.sha256()
    done = 0
    for path in await asyncio.to_thread(files_of, model.path):
        with await asyncio.to_thread(_open, path) as file:
            while count := await asyncio.to_thread(_take_in, file, digest):
                done += count
                yield DigestProgress(done)
    yield DigestProgress(done, digest.hexdigest())


def _open(path: Path) -> FileIO:
    try:
        return FileIO(path)
    except OSError as error:
        raise _unreadable(path, error) from None


def _take_in(file: FileIO, digest: "hashlib._Hash") -> int:
    """Bytes that were read; 0 at the end of the file."""
    piece = bytearray(_PIECE_BYTES)
    taken = 0
    try:
        while taken < _AT_ONCE_BYTES and (count := file.readinto(piece)):
            digest.update(memoryview(piece)[:count])
            taken += count
    except OSError as error:
        raise _unreadable(Path(str(file.name)), error) from None
    return taken


def _unreadable(path: Path, error: OSError) -> FailedPrecondition:
    return FailedPrecondition(Reason.MODEL_FILE_INVALID, f"{path.name} can't be read: {error.strerror}")
