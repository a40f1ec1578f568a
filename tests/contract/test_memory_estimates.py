"""How close the estimates come: from the header, from the engine without a load, and what the load then took."""

import subprocess
from pathlib import Path

import pytest

from llorch.cache_type import CacheType
from llorch.device_kind import DeviceKind
from llorch.device_kind import DeviceKind as WorkerDeviceKind
from llorch.gguf.memory_estimate import LoadShape, MemoryEstimate, estimate
from llorch.gguf.model_file import read_model
from llorch.rpc import model_facts
from orchestratord.core.facts.memory_estimate import estimate_split_mib
from orchestratord.core.facts.model import Model, ModelSpec, Origin
from pool_managerd.convert.models import to_complete_progress
from pool_managerd.models.located_model import LocatedModel
from support.engine_estimate import ask_engine
from support.real_model import smollm2
from support.tiny_models import ARCHITECTURES, write_tiny_model
from worker_orcd.device import DeviceSet
from worker_orcd.engines.llama_cpp.amx import has_amx, may_repack
from worker_orcd.engines.llama_cpp.engine import LlamaCppEngine
from worker_orcd.engines.llama_cpp.native import load_native
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape

pytestmark = pytest.mark.native

SHAPES = [
    LoadShape(1, 4096, on_gpu=False),
    LoadShape(4, 2048, on_gpu=False),
    LoadShape(4, 2048, CacheType.Q8_0, CacheType.Q8_0, on_gpu=False),
    LoadShape(16, 512, CacheType.Q4_0, CacheType.Q4_0, on_gpu=False),
]


def is_repacked() -> bool:
    """A CPU with AMX has weights in an order of its own, and those that are also looked up by row a second time."""
    return has_amx(load_native()) and may_repack(load_native())


def check_close(ours: MemoryEstimate, theirs: dict[str, int], *, compute_tolerance: float) -> None:
    if is_repacked():
        assert ours.weights <= theirs["weights"] <= 1.5 * ours.weights
    else:
        assert ours.weights == theirs["weights"]
    kept, computed = ours.cache + ours.state, ours.compute
    assert kept <= theirs["cache"] <= kept + ours.reading
    assert abs(kept + computed + ours.reading - theirs["cache"] - theirs["compute"]) <= compute_tolerance * (
        theirs["cache"] + theirs["compute"]
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_the_header_says_what_the_engine_says(shape: LoadShape) -> None:
    path = smollm2()
    theirs = ask_engine(path, shape)
    ours = estimate(read_model(path), shape)
    check_close(ours, theirs, compute_tolerance=0.15)
    assert is_repacked() or abs(ours.total - sum(theirs.values())) <= 0.01 * ours.total


@pytest.mark.parametrize("shape", SHAPES[1:3])
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_the_header_says_what_the_engine_says_for_every_architecture(
    tmp_path: Path, architecture: str, shape: LoadShape
) -> None:
    path = write_tiny_model(tmp_path, architecture)
    check_close(estimate(read_model(path), shape), ask_engine(path, shape), compute_tolerance=0.5)


@pytest.mark.req("ORCH-1014")
@pytest.mark.parametrize(
    ("slots", "context", "cache"),
    [
        (1, 8192, CacheType.F16),
        (4, 2048, CacheType.F16),
        (32, 512, CacheType.F16),
        (1, 2048, CacheType.Q8_0),
        (32, 8192, CacheType.Q8_0),
        (4, 512, CacheType.Q4_0),
    ],
)
def test_what_the_brain_sets_aside_is_what_the_engine_allocates(slots: int, context: int, cache: CacheType) -> None:
    """All the way: from the file's header over the wire to the claim, within 5 % or 64 MiB."""
    path = smollm2()
    told = to_complete_progress(LocatedModel("file:/m.gguf", path, read_model(path)))
    spec = ModelSpec("m", "file:/m.gguf", slots=slots, context=context, cache_type=cache)
    model = Model(spec, Origin.CALL, "a test", 0)
    model.facts = model_facts.from_proto(told.facts)
    (ours_mib,) = estimate_split_mib(model, told.done_mib, context, (1.0,), DeviceKind.CPU)
    theirs = sum(ask_engine(path, LoadShape(slots, context, cache, cache, on_gpu=False)).values()) / 2**20
    assert abs(ours_mib - theirs) <= max(0.05 * theirs, 64)


def test_a_file_that_is_no_model_is_answered_in_words(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(subprocess.CalledProcessError) as failed:
        ask_engine(path, SHAPES[0])
    assert failed.value.stderr.strip().startswith("worker-orcd: no estimate: x.gguf is not a model that can be loaded")


async def test_what_a_load_takes_is_measured() -> None:
    """Resident memory counts a cache only once it was used, and weights that are mapped only once they were read."""
    path = smollm2()
    shape = LlamaCppShape(path, "m", DeviceSet(WorkerDeviceKind.CPU, ("cpu",)), 1, 4096, threads=1)
    engine = LlamaCppEngine(shape)
    await engine.load()
    (measured,) = engine.info().memory_mib
    await engine.close()
    assert 0 < measured <= 1.3 * estimate(read_model(path), SHAPES[0]).total_mib
