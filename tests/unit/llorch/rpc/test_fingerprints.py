"""Fingerprints are compared as one text, and told to people in a few words."""

import pytest

from llama_orch.v2 import engine_pb2
from llorch.rpc.fingerprints import digest_of, words_of

pytestmark = pytest.mark.req("ORCH-1038")

SAID: dict[str, object] = {
    "engine_version": "llama_cpp 0.3.36",
    "build": "AVX2 | FMA",
    "device_kind": "cuda",
    "device": "RTX 3090, driver 555",
    "model_digest": "9f86d081884c7d65",
    "sampler_profile": 2,
    "prefill_chunk": 256,
    "threads": 8,
    "flash_attention": True,
    "cache_type_k": "f16",
    "cache_type_v": "q8_0",
    "context_per_slot": 8192,
}


def fingerprint(**other: object) -> engine_pb2.EngineFingerprint:
    return engine_pb2.EngineFingerprint(**(SAID | other))  # type: ignore[arg-type]  # tests name fields


def test_every_field_of_the_contract_counts() -> None:
    assert SAID.keys() == {field.name for field in engine_pb2.EngineFingerprint.DESCRIPTOR.fields}
    whole = fingerprint()
    for name in SAID:
        less = fingerprint()
        less.ClearField(name)  # type: ignore[arg-type]  # all of them, by name
        assert digest_of(less) != digest_of(whole), name
        assert words_of(less) != words_of(whole), name
    assert digest_of(fingerprint()) == digest_of(whole)


def test_a_field_of_a_later_release_counts_although_it_is_not_known_here() -> None:
    """As the worker's own release serializes it, and as it is after one that does not know the field."""
    later = fingerprint().SerializeToString() + b"\xa2\x06\x03new"
    passed_on = engine_pb2.EngineFingerprint.FromString(later)
    assert passed_on.SerializeToString(deterministic=True) == later
    assert digest_of(passed_on) != digest_of(fingerprint())


def test_none_has_no_digest_and_no_words() -> None:
    empty = engine_pb2.EngineFingerprint()
    assert (digest_of(empty), words_of(empty)) == ("", ())


def test_the_words_are_short_and_begin_with_the_device() -> None:
    words = words_of(fingerprint(build="x" * 5000, device="y" * 5000))
    assert words[0] == "cuda"
    assert all(len(word) <= 160 for word in words)
    assert {"llama_cpp 0.3.36", "model file 9f86d081", "threads 8", "flash attention"} < set(words)
