"""Fingerprints of workers: one text that is compared, and words for people."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from llama_orch.v2 import engine_pb2

_LONGEST_WORD = 160
"""Characters."""


def digest_of(fingerprint: engine_pb2.EngineFingerprint) -> str:
    """SHA-256 in hexadecimal over the message; equal digests stand for equal fingerprints. Empty if there is none.

    Fields of a later release count as well: a daemon that does not know them has kept them, and they come last.
    """
    content = fingerprint.SerializeToString(deterministic=True)
    return hashlib.sha256(content).hexdigest() if content else ""


def words_of(fingerprint: engine_pb2.EngineFingerprint) -> tuple[str, ...]:
    """Everything that it says, in short, the device first."""
    said = sorted(fingerprint.ListFields(), key=lambda one: not one[0].name.startswith("device"))
    return tuple(_word(field.name, value)[:_LONGEST_WORD] for field, value in said)


def _word(name: str, value: Any) -> str:
    if in_short := _IN_SHORT.get(name):
        return in_short(value)
    return f"{name.replace('_', ' ')} {value}"


def _of_build(flags: str) -> str:
    return f"build {hashlib.sha256(flags.encode()).hexdigest()[:8]}"


_IN_SHORT: Mapping[str, Callable[[Any], str]] = {
    "engine_version": str,
    "build": _of_build,
    "device_kind": str,
    "device": str,
    "model_digest": lambda digest: f"model file {digest[:8]}",
    "flash_attention": lambda _: "flash attention",
}
