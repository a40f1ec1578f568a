"""From a path to the facts of the model in it, over all of its files. Blocks on the disk for a moment."""

import os
from pathlib import Path

from llorch.errors import FailedPrecondition, LlorchError, NotFound, Reason
from llorch.gguf.cursor import Malformed
from llorch.gguf.facts import FileFacts, read_facts, split_of
from llorch.gguf.header import Header, read_header
from llorch.gguf.split_name import split_name


def read_model(path: Path) -> FileFacts:
    """Raises `FailedPrecondition` (MODEL_FILE_INVALID) or `NotFound` (MODEL_FILE_MISSING).

    A split model is named by its first file, as llama.cpp wants. Messages name files without their folders: they travel
    to clients.
    """
    first = _header_of(path)
    number, count = _split_of(path, first)
    if number != 0:
        raise invalid(path, f"is number {number + 1} of the {count} files of its model; give the first")
    headers = [first, *(_further_header(file, index + 1, count) for index, file in enumerate(_further(path, count)))]
    try:
        return read_facts(headers)
    except Malformed as error:
        raise invalid(path, str(error)) from None


def files_of(path: Path) -> list[Path]:
    """All files of the model whose first file this is. Raises as `read_model`."""
    return [path, *_further(path, _split_of(path, _header_of(path))[1])]


def _further(path: Path, count: int) -> list[Path]:
    """The files of a split model after its first."""
    if count == 1:
        return []
    name = split_name(path.name)
    if name is None or name.count != count:
        raise invalid(path, f"is the first of {count} files, and has to be called NAME-00001-of-{count:05}.gguf")
    return [path.with_name(file) for file in name.all()[1:]]


def _further_header(path: Path, number: int, count: int) -> Header:
    header = _header_of(path)
    if _split_of(path, header) != (number, count):
        raise invalid(path, f"is not number {number + 1} of the {count} files of its model")
    return header


def _split_of(path: Path, header: Header) -> tuple[int, int]:
    try:
        return split_of(header)
    except Malformed as error:
        raise invalid(path, str(error)) from None


def invalid(path: Path, found: str) -> LlorchError:
    return FailedPrecondition(
        Reason.MODEL_FILE_INVALID,
        f"{path.name} is not a model that can be loaded: it {found}",
        metadata={"file": path.name},
    )


def _header_of(path: Path) -> Header:
    try:
        with path.open("rb") as file:
            return read_header(file, os.fstat(file.fileno()).st_size)
    except Malformed as error:
        raise invalid(path, str(error)) from None
    except FileNotFoundError:
        raise NotFound(Reason.MODEL_FILE_MISSING, f"the model file {path.name} does not exist") from None
    except OSError as error:
        raise invalid(path, f"can't be read: {error.strerror}") from None
