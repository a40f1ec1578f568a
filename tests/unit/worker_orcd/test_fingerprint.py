"""What the bytes of answers depend on, named."""

from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llorch.cache_type import CacheType
from llorch.device_kind import DeviceKind
from worker_orcd.device import DeviceSet
from worker_orcd.engine_info import Fingerprint
from worker_orcd.engines.llama_cpp.fingerprint import fingerprint, nvidia_driver
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape

NATIVE: Any = SimpleNamespace(version="0.3.36", system_info=lambda: "AVX2 = 1")
CPU = LlamaCppShape(
    Path("m.gguf"), "m", DeviceSet(DeviceKind.CPU, ("cpu",)), 4, 1024, threads=2, cache_type_v=CacheType.Q8_0
)
TWO_GPUS = replace(CPU, devices=DeviceSet(DeviceKind.CUDA, ("a", "b")), tensor_split=(0.75, 0.25))


def of(shape: LlamaCppShape, *, gpus: tuple[str, ...] = (), digest: str = "d") -> Fingerprint:
    return fingerprint(NATIVE, shape, gpus, digest, deterministic=True)


@pytest.mark.parametrize(
    "change",
    [{"threads": 3}, {"cache_type_k": CacheType.Q8_0}, {"cache_type_v": CacheType.F16}, {"context_per_slot": 2048}],
    ids=str,
)
def test_whatever_changes_bytes_changes_it(change: dict[str, Any]) -> None:
    assert of(replace(CPU, **change)) != of(CPU)
    assert of(CPU, digest="e") != of(CPU)


def test_how_many_run_at_once_changes_no_bytes() -> None:
    assert of(replace(CPU, slots=9, deterministic_runs=1, model="renamed")) == of(CPU)


def test_gpus_are_named_in_order_with_their_shares_and_driver() -> None:
    device = of(TWO_GPUS, gpus=("RTX 3090", "RTX 3060")).device
    assert device.startswith("RTX 3090, RTX 3060, split layer 0.75:0.25, ")
    assert of(CPU).device == ""


def test_an_unproven_worker_has_no_chunk() -> None:
    unproven = fingerprint(NATIVE, CPU, (), "d", deterministic=False)
    assert asdict(unproven) == {**asdict(of(CPU)), "prefill_chunk": 0}


def test_the_driver_is_named_by_its_kernel_module(tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX  x86_64  Kernel Module  550.54\nGCC version: 12\n")
    assert nvidia_driver(version) == "NVIDIA UNIX x86_64 Kernel Module 550.54"
    assert nvidia_driver(tmp_path / "none") == "driver unknown"
