"""What a header may say, and how each lie is refused."""

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest

from llorch.gguf.cursor import MAX_STRINGS, Malformed
from llorch.gguf.header import Header, PassedOver, read_header
from support.gguf_writer import Hollow, MetadataValue, TensorData, header_bytes

METADATA: dict[str, MetadataValue] = {
    "general.architecture": "llama",
    "flag": True,
    "ratio": 0.5,
    "heads": [4, 2, 4],
    "tokens": ["a", "bb", ""],
}
TENSORS: dict[str, TensorData] = {"a.weight": Hollow((3, 64)), "b.weight": np.ones((2, 2), np.float32)}


def whole(metadata: dict[str, MetadataValue] = METADATA, tensors: dict[str, TensorData] = TENSORS) -> bytes:
    return header_bytes(metadata, tensors) + bytes(4096)


def read(content: bytes, size: int | None = None) -> Header:
    return read_header(io.BytesIO(content), len(content) if size is None else size)


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def with_entry(entry: bytes) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + entry


def with_tensor(name: bytes = b"t", dimensions: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    count = len(dimensions)
    tensor = string(name) + struct.pack(f"<I{count}QIQ", count, *dimensions, kind, offset)
    return struct.pack("<4sIQQ", b"GGUF", 3, 1, 0) + tensor + bytes(1024)


def test_a_header_is_read() -> None:
    header = read(whole())
    assert header.metadata == METADATA | {"tokens": PassedOver(3), "heads": (4, 2, 4)}
    assert [(tensor.name, tensor.dimensions, tensor.size_bytes) for tensor in header.tensors] == [
        ("a.weight", (64, 3), 108),
        ("b.weight", (2, 2), 16),
    ]
    assert header.data_offset == len(header_bytes(METADATA, TENSORS))


def test_long_values_are_passed_over() -> None:
    metadata: dict[str, MetadataValue] = {"text": "x" * 5000, "scores": [0.5] * 5000, "last": 7}
    assert read(whole(metadata, {})).metadata == {"text": PassedOver(5000), "scores": PassedOver(5000), "last": 7}


def test_a_vocabulary_larger_than_what_is_read_at_once_is_walked() -> None:
    tokens = ["token" * (number % 40) for number in range(20_000)]
    header = read(whole({"tokens": tokens, "last": 7}, {}))
    assert header.metadata == {"tokens": PassedOver(20_000), "last": 7}


def test_values_are_read_right_wherever_reading_pauses() -> None:
    texts = {f"text {number}": "x" * (number % 711) for number in range(2000)}
    lists = {f"list {number}": [number] * (number % 97 + 1) for number in range(2000)}
    header = read(whole({**texts, **lists}, {}))
    assert header.data_offset > 900_000
    assert header.metadata == texts | {key: tuple(numbers) for key, numbers in lists.items()}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is empty"),
        (b"GG", "begins with b'GG'"),
        (b"<!DOCTYPE html>", "begins with b'<!DO'"),
        (b"GGUF\x03\0", "ends inside its header"),
        (struct.pack("<4sIQQ", b"GGUF", 1, 0, 0), "the GGUF version 1"),
        (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "big-endian"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 2**63, 0), "claims 9223372036854775808 tensors"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**40), "1099511627776 metadata entries"),
        (with_entry(string(b"")), "an empty key"),
        (with_entry(struct.pack("<Q", 2**60)), "a key of 1152921504606846976 bytes"),
        (with_entry(string(b"\xff\xfe")), "no UTF-8"),
        (with_entry(string(b"k") + struct.pack("<I", 77)), "unknown type 77 for 'k'"),
        (with_entry(string(b"k") + struct.pack("<IQ", 8, 2**50)), "ends inside its header"),
        (with_entry(string(b"k") + struct.pack("<IIQ", 9, 9, 3)), "unknown type 9 for 'k'"),
        (with_entry(string(b"k") + struct.pack("<IIQ", 9, 4, 2**62)), "ends inside its header"),
        (with_entry(string(b"k") + struct.pack("<IIQ", 9, 8, 2**40)), f"more than {MAX_STRINGS} strings"),
        (with_entry(string(b"k") + struct.pack("<IIQQ", 9, 8, 1, 2**64 - 1)), "ends inside its header"),
        (with_entry(string(b"general.alignment") + struct.pack("<II", 4, 33)), "alignment 33"),
        (with_entry(string(b"general.alignment") + struct.pack("<II", 4, 0)), "alignment 0"),
        (with_tensor(name=b"n" * 64), "a tensor's name of 64 bytes"),
        (with_tensor(dimensions=(1, 1, 1, 1, 1)), "5 dimensions"),
        (with_tensor(kind=4), "unknown type 4"),
        (with_tensor(dimensions=(33,), kind=2), "33 numbers in a row"),
        (with_tensor(dimensions=(2**40, 2**40)), "impossible size"),
        (with_tensor(offset=32), "at offset 32, where 0 is due"),
        (with_tensor(dimensions=(2**40,)), "may have been cut off"),
    ],
)
def test_what_is_wrong_is_named(content: bytes, found: str) -> None:
    with pytest.raises(Malformed, match=found):
        read(content)


def test_the_same_name_twice_is_refused() -> None:
    entry = string(b"k") + struct.pack("<II", 4, 1)
    with pytest.raises(Malformed, match="the key 'k' twice"):
        read(struct.pack("<4sIQQ", b"GGUF", 3, 0, 2) + entry * 2)
    tensor = string(b"t") + struct.pack("<IQIQ", 1, 0, 0, 0)
    with pytest.raises(Malformed, match="the tensor 't' twice"):
        read(struct.pack("<4sIQQ", b"GGUF", 3, 2, 0) + tensor * 2)


def test_a_file_is_refused_wherever_it_was_cut_off() -> None:
    content = whole()
    end = read(content).data_offset + 128 + 16
    assert read(content[:end])
    for length in range(end):
        with pytest.raises(Malformed):
            read(content[:length])


def test_a_file_that_shrinks_while_it_is_read_is_refused() -> None:
    content = whole()
    with pytest.raises(Malformed, match="shorter"):
        read(content[:100], size=len(content))


@pytest.mark.parametrize(
    "hostile",
    [
        lambda: with_entry(string(b"k") + struct.pack("<IIQ", 9, 8, MAX_STRINGS)) + bytes(8 * MAX_STRINGS),
        lambda: with_entry(string(b"k") + struct.pack("<IIQ", 9, 0, 2**40)),
        lambda: struct.pack("<4sIQQ", b"GGUF", 3, 8192, 4096) + bytes(2**20),
    ],
)
def test_a_hostile_file_takes_no_memory_to_speak_of(hostile: Callable[[], bytes]) -> None:
    """Counts are checked before anything is made of them; this would hang or run out of memory otherwise."""
    content = hostile()
    try:
        read(content)
    except Malformed:
        return
    assert len(content) > 8 * MAX_STRINGS
