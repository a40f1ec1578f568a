"""What a worker is to be, over the wire."""

from dataclasses import replace
from typing import Any

import pytest

from llama_orch.v2 import worker_pb2
from llorch.cache_type import CacheType
from llorch.errors import InvalidArgument
from llorch.rpc import worker_spec
from llorch.worker_spec import WorkerSpec

SPEC = WorkerSpec(
    worker_id="w-1",
    model="coder",
    source="file:/models/coder.gguf",
    device_ids=("GPU-1", "GPU-2"),
    slots=4,
    context_per_slot=8192,
    cache_type_k=CacheType.Q8_0,
    cache_type_v=CacheType.Q4_0,
    tensor_split=(0.75, 0.25),
    reservation_mib=(9000, 3000),
    engine="sim",
)
NEWER: Any = 99


def test_a_spec_comes_back_as_it_was() -> None:
    message = worker_spec.to_proto(SPEC)
    assert message.cache_type_v == worker_pb2.CACHE_TYPE_Q4_0
    assert worker_spec.from_command(message) == worker_spec.from_report(message) == SPEC


def test_a_cache_type_that_is_not_told_is_f16() -> None:
    message = worker_spec.to_proto(SPEC)
    message.ClearField("cache_type_k")
    assert worker_spec.from_command(message) == replace(SPEC, cache_type_k=CacheType.F16)


def test_a_cache_type_of_a_newer_release_is_refused_in_a_command_and_read_in_a_report() -> None:
    message = worker_spec.to_proto(SPEC)
    message.cache_type_k = NEWER
    with pytest.raises(InvalidArgument, match=r"spec\.cache_type_k: has to be CACHE_TYPE_F16, .* or CACHE_TYPE_Q4_0"):
        worker_spec.from_command(message)
    assert worker_spec.from_report(message) == replace(SPEC, cache_type_k=CacheType.F16)


@pytest.mark.parametrize(
    "wrong",
    [
        {"worker_id": "a b"},
        {"model": ""},
        {"source": ""},
        {"device_ids": ()},
        {"slots": 0},
        {"slots": 257},
        {"context_per_slot": 255},
        {"context_per_slot": 4_194_305},
        {"tensor_split": (1.0,)},
        {"tensor_split": (0.0, 0.0)},
        {"tensor_split": (1.0, float("inf"))},
        {"tensor_split": (1.0, float("nan"))},
        {"reservation_mib": (1,)},
        {"engine": "abacus"},
    ],
)
def test_a_command_that_can_not_be_right_is_refused_with_its_field(wrong: dict[str, Any]) -> None:
    (field,) = wrong
    with pytest.raises(InvalidArgument) as refused:
        worker_spec.from_command(worker_spec.to_proto(replace(SPEC, **wrong)))
    assert [violation.field for violation in refused.value.violations] == [f"spec.{field}"]


def test_adapters_are_refused() -> None:
    message = worker_spec.to_proto(SPEC)
    message.adapters.append("lora")
    with pytest.raises(InvalidArgument, match=r"spec\.adapters"):
        worker_spec.from_command(message)
