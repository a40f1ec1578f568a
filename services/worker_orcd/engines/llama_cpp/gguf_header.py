"""A first look at a model's file, before native code gets to see it."""

import struct
from pathlib import Path

from llorch.errors import InvalidArgument, NotFound, Reason

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_COUNT = 1 << 20
"""No model has a million tensors or metadata entries; a file that says so is damaged or hostile."""

_HEADER = struct.Struct("<4sIQQ")


def check_gguf(path: Path) -> None:
    """Refuses what is not a GGUF file that this engine reads; names the file and what was found in it."""
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER.size)
    except FileNotFoundError:
        raise NotFound(Reason.MODEL_FILE_MISSING, f"the model file {path.name} does not exist") from None
    except OSError as error:
        raise InvalidArgument(
            Reason.MODEL_FILE_INVALID, f"the model file {path.name} can't be read: {error.strerror}"
        ) from None
    problem = _problem(start)
    if problem:
        raise InvalidArgument(Reason.MODEL_FILE_INVALID, f"{path.name} is not a GGUF model: {problem}")


def _problem(start: bytes) -> str:
    if not start:
        return "it is empty"
    if not start.startswith(MAGIC):
        return f"it begins with {start[:4]!r}, and GGUF files begin with {MAGIC!r}"
    if len(start) < _HEADER.size:
        return f"it ends after {len(start)} bytes"
    _, version, tensors, entries = _HEADER.unpack(start)
    if version not in VERSIONS:
        return f"its version is {version}, and this engine reads {' and '.join(map(str, VERSIONS))}"
    if tensors > MAX_COUNT or entries > MAX_COUNT:
        return f"it claims {tensors} tensors and {entries} metadata entries"
    return ""
