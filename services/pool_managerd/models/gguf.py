"""Whether a file is a GGUF model, and if not, what it looks like instead."""

import struct
from pathlib import Path

from llorch.errors import FailedPrecondition, Reason

_HEADER = struct.Struct("<4sI")
_MAGIC = b"GGUF"
_READABLE_VERSIONS = (2, 3)
ENOUGH_TO_TELL = 512


def check_gguf(path: Path) -> None:
    """As `check_head`, of a file on disk."""
    with path.open("rb") as file:
        check_head(file.read(ENOUGH_TO_TELL), path.name)


def check_head(head: bytes, name: str) -> None:
    """Raises `FailedPrecondition` (MODEL_FILE_INVALID) unless this is how a GGUF file starts.

    `head` has ENOUGH_TO_TELL bytes, or is the whole file.
    """
    if not head.startswith(_MAGIC):
        raise _invalid(name, f"it {_looks_like(head)}")
    if len(head) < _HEADER.size:
        raise _invalid(name, "it ends inside its header; the download seems to have been cut off")
    version = _HEADER.unpack_from(head)[1]
    if version not in _READABLE_VERSIONS:
        raise _invalid(name, f"its GGUF version is {version}, and this release reads 2 and 3")


def _looks_like(head: bytes) -> str:
    start = head.lstrip().lower()
    if not head:
        return "is empty"
    if start.startswith((b"<!doctype html", b"<html")):
        return "is an HTML page; the download seems to have fetched a web page instead of the file"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer; fetch the real file with `git lfs pull`"
    if head.startswith(b"PK\x03\x04"):
        return "is a zip archive (a PyTorch checkpoint is one); convert it to GGUF"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return "is a safetensors file; convert it to GGUF"
    if head[:4] in (b"ggml", b"lmgg", b"ggjt", b"tjgg"):
        return "is in a format older than GGUF; convert it"
    if _is_text(head):
        return "is text"
    return f"starts with the bytes {head[:4].hex(' ')}"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # the last character may have been cut in two
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\r\n\t" for character in text)


def _invalid(name: str, found: str) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.MODEL_FILE_INVALID,
        f"{name} is not a model that can be loaded: {found}. Give a GGUF file.",
        metadata={"file": name},
    )
