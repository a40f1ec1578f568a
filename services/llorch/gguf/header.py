"""The header of one GGUF file: its metadata, and what tensors it has. Pure.

Layout (version 2 and 3, little-endian): magic, version, number of tensors, number of entries; the entries (key, type,
value); the tensors (name, dimensions, type, offset); padding; tensor data. What llama.cpp refuses is refused here
too, so that native code never gets it.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import BinaryIO

from llorch.gguf.cursor import Cursor, Malformed
from llorch.gguf.tensor_types import TENSOR_TYPES, TensorType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_ENTRIES = 4096
MAX_TENSORS = 8192
MAX_DIMENSIONS = 4
MAX_KEY_BYTES = 1024
MAX_NAME_BYTES = 63
KEPT_STRING_BYTES = 1024
"""Longer texts, such as chat templates, are passed over; that they are there is known."""

KEPT_NUMBERS = 512
"""Longer lists, such as the scores of a vocabulary, are passed over. This is the most layers that there can be."""

_ALIGNMENT_KEY = "general.alignment"
_DEFAULT_ALIGNMENT = 32
_MAX_ALIGNMENT = 1 << 20
_MAX_NUMBERS_OF_A_TENSOR = 1 << 62
_STRING, _ARRAY = 8, 9
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SCALARS = {number: struct.Struct(f"<{code}") for number, code in _CODES.items()}


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A value that is there and was not read: `length` in bytes of a text, in elements of a list."""

    length: int


Number = int | float | bool
Value = Number | str | tuple[Number, ...] | PassedOver


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    dimensions: tuple[int, ...]
    type: TensorType
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """`data_offset` is where tensor data begins, from the file's beginning."""

    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    data_offset: int
    file_bytes: int


def read_header(file: BinaryIO, size: int) -> Header:
    """Reads from the file's beginning on, the header alone. Raises Malformed for whatever is not right."""
    cursor = Cursor(file, size)
    version, tensor_count, entry_count = _read_start(cursor, size)
    metadata = _read_metadata(cursor, entry_count)
    alignment = _alignment(metadata)
    tensors = _read_tensors(cursor, tensor_count, alignment)
    data_offset = _padded(cursor.position, alignment)
    _check_end(tensors, data_offset, size, alignment)
    return Header(version, metadata, tensors, data_offset, size)


def _read_start(cursor: Cursor, size: int) -> tuple[int, int, int]:
    if size == 0:
        raise Malformed("is empty")
    start = cursor.raw(min(size, len(MAGIC)))
    if start != MAGIC:
        raise Malformed(f"begins with {start!r}, and GGUF files begin with {MAGIC!r}")
    version = cursor.u32()
    if version not in VERSIONS:
        swapped = " (it seems to be written for big-endian machines)" if version and version & 0xFFFF == 0 else ""
        raise Malformed(f"has the GGUF version {version}{swapped}, and {' and '.join(map(str, VERSIONS))} are read")
    tensors, entries = cursor.u64(), cursor.u64()
    if tensors > MAX_TENSORS or entries > MAX_ENTRIES:
        raise Malformed(
            f"claims {tensors} tensors and {entries} metadata entries; {MAX_TENSORS} and {MAX_ENTRIES} are the most"
        )
    return version, tensors, entries


def _read_metadata(cursor: Cursor, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for _ in range(count):
        key = _readable(cursor.string(MAX_KEY_BYTES, "a key"), "a key")
        if not key or key in metadata:
            raise Malformed(f"has the key {_shown(key)} twice" if key else "has an empty key")
        metadata[key] = _read_value(cursor, key, cursor.u32())
    return metadata


def _read_value(cursor: Cursor, key: str, kind: int) -> Value:
    if kind == _STRING:
        return _read_text(cursor)
    if kind == _ARRAY:
        return _read_list(cursor, key, cursor.u32(), cursor.u64())
    if kind not in _SCALARS:
        raise Malformed(f"has a value of the unknown type {kind} for {_shown(key)}")
    return cursor.unpack(_SCALARS[kind])


def _read_text(cursor: Cursor) -> Value:
    length = cursor.u64()
    if length > KEPT_STRING_BYTES:
        cursor.skip(length)
        return PassedOver(length)
    return cursor.raw(length).decode(errors="replace")


def _read_list(cursor: Cursor, key: str, kind: int, count: int) -> Value:
    if kind == _STRING:
        cursor.skip_strings(count)
        return PassedOver(count)
    if kind not in _SCALARS:
        raise Malformed(f"has a list of the unknown type {kind} for {_shown(key)}")
    form = _SCALARS[kind]
    if count > KEPT_NUMBERS:
        cursor.skip(form.size * count)
        return PassedOver(count)
    return cursor.numbers(form.format[1:], form.size, count)


def _read_tensors(cursor: Cursor, count: int, alignment: int) -> tuple[Tensor, ...]:
    """Their data lies one behind the other, each padded: any other offset is refused, as llama.cpp does."""
    tensors: dict[str, Tensor] = {}
    expected = 0
    for _ in range(count):
        name = _readable(cursor.string(MAX_NAME_BYTES, "a tensor's name"), "a tensor's name")
        if name in tensors:
            raise Malformed(f"has the tensor {name!r} twice")
        tensor = _read_tensor(cursor, name)
        offset = cursor.u64()
        if offset != expected:
            raise Malformed(f"has the tensor {name!r} at offset {offset}, where {expected} is due")
        tensors[name] = tensor
        expected += _padded(tensor.size_bytes, alignment)
    return tuple(tensors.values())


def _read_tensor(cursor: Cursor, name: str) -> Tensor:
    dimension_count = cursor.u32()
    if dimension_count > MAX_DIMENSIONS:
        raise Malformed(f"has a tensor {name!r} of {dimension_count} dimensions, and {MAX_DIMENSIONS} are the most")
    dimensions = tuple(cursor.u64() for _ in range(dimension_count))
    kind = cursor.u32()
    tensor_type = TENSOR_TYPES.get(kind)
    if tensor_type is None:
        raise Malformed(f"has a tensor {name!r} of the unknown type {kind}")
    numbers = prod(dimensions)
    if numbers > _MAX_NUMBERS_OF_A_TENSOR:
        raise Malformed(f"has a tensor {name!r} of impossible size")
    row = dimensions[0] if dimensions else 1
    if row % tensor_type.block:
        raise Malformed(
            f"has a tensor {name!r} with {row} numbers in a row, not a multiple of {tensor_type.block} "
            f"as {tensor_type.name} wants"
        )
    return Tensor(name, dimensions, tensor_type, numbers // tensor_type.block * tensor_type.block_bytes)


def _check_end(tensors: tuple[Tensor, ...], data_offset: int, size: int, alignment: int) -> None:
    if not tensors:
        return
    before_last = sum(_padded(tensor.size_bytes, alignment) for tensor in tensors[:-1])
    end = data_offset + before_last + tensors[-1].size_bytes
    if end > size:
        raise Malformed(f"has {size} of at least {end} bytes; it may have been cut off")


def _alignment(metadata: Mapping[str, Value]) -> int:
    value = metadata.get(_ALIGNMENT_KEY, _DEFAULT_ALIGNMENT)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or not 0 < value <= _MAX_ALIGNMENT or value & (value - 1):  # type: ignore[operator]  # it is an int
        raise Malformed(f"has the alignment {value!r}, which is no power of two up to {_MAX_ALIGNMENT}")
    return int(value)  # type: ignore[arg-type]  # it is an int


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _shown(key: str) -> str:
    return repr(key[:60])


def _readable(text: bytes, what: str) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise Malformed(f"has {what} that is no UTF-8: {text[:40]!r}") from None
