"""Writes GGUF files for tests: small whole ones, and hollow ones that only look large."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llorch.gguf.tensor_types import TENSOR_TYPES

MetadataValue = str | bool | int | float | Sequence[str] | Sequence[bool] | Sequence[int] | Sequence[float]
_ALIGNMENT = 32
_U8, _U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 0, 4, 5, 6, 7, 8, 9
_NUMBERS = {tensor_type.name: number for number, tensor_type in TENSOR_TYPES.items()}


@dataclass(frozen=True, slots=True)
class Hollow:
    """A tensor without data: the file has a hole there. `shape` as numpy has it, the row last."""

    shape: tuple[int, ...]
    type_name: str = "q4_0"

    @property
    def size_bytes(self) -> int:
        tensor_type = TENSOR_TYPES[_NUMBERS[self.type_name]]
        return prod(self.shape) // tensor_type.block * tensor_type.block_bytes


TensorData = NDArray[np.float32] | Hollow


def write_gguf(path: Path, metadata: Mapping[str, MetadataValue], tensors: Mapping[str, TensorData]) -> Path:
    """Tensors are stored as 32-bit floats, hollow ones not at all."""
    head = header_bytes(metadata, tensors)
    with path.open("wb") as file:
        file.write(head)
        position = len(head)
        for data in tensors.values():
            file.seek(position)
            if isinstance(data, np.ndarray):
                file.write(np.ascontiguousarray(data, np.float32).tobytes())
            position += _padded(_size(data))
        file.truncate(position)
    return path


def smallest_model(context_trained: int = 8192) -> bytes:
    """A file with the metadata that every model needs, for code that reads no more than that."""
    return header_bytes(_smallest() | {"llama.context_length": context_trained}, {})


def smallest_ranker() -> bytes:
    """The same of a model that says it orders documents; with a classifier, which such a model has to have."""
    classifier = Hollow((1, 64))
    metadata = _smallest() | {"llama.pooling_type": 4}
    return header_bytes(metadata, {"cls.output.weight": classifier}) + bytes(classifier.size_bytes)


def _smallest() -> dict[str, MetadataValue]:
    return {
        "general.architecture": "llama",
        "llama.context_length": 8192,
        "llama.embedding_length": 64,
        "llama.block_count": 1,
        "llama.attention.head_count": 1,
    }


def header_bytes(metadata: Mapping[str, MetadataValue], tensors: Mapping[str, TensorData]) -> bytes:
    """The header with its padding."""
    parts = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))]
    parts += [_string(key) + _value(value) for key, value in metadata.items()]
    offset = 0
    for name, data in tensors.items():
        dimensions = tuple(reversed(data.shape))
        number = _NUMBERS["f32"] if isinstance(data, np.ndarray) else _NUMBERS[data.type_name]
        parts.append(
            _string(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, number, offset)
        )
        offset += _padded(_size(data))
    head = b"".join(parts)
    return head + bytes(_padded(len(head)) - len(head))


def _value(value: MetadataValue) -> bytes:
    if isinstance(value, str | bool | int | float):
        kind = _kind(value)
        return struct.pack("<I", kind) + _scalar(kind, value)
    kind = _I32 if _kind(value[0]) == _U32 else _kind(value[0])
    return struct.pack("<IIQ", _ARRAY, kind, len(value)) + b"".join(_scalar(kind, one) for one in value)


def _kind(value: object) -> int:
    if isinstance(value, str):
        return _STRING
    if isinstance(value, bool):
        return _BOOL
    return _F32 if isinstance(value, float) else _U32 if isinstance(value, int) and value >= 0 else _I32


def _scalar(kind: int, value: object) -> bytes:
    if isinstance(value, str):
        return _string(value)
    return struct.pack({_BOOL: "<?", _U32: "<I", _I32: "<i", _F32: "<f"}[kind], value)


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _size(data: TensorData) -> int:
    return data.nbytes if isinstance(data, np.ndarray) else data.size_bytes


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
