"""How much memory the brain sets aside, with and without what a model's file says."""

from pathlib import Path

import pytest

from llorch.cache_type import CacheType
from llorch.device_kind import DeviceKind
from llorch.gguf.facts import FileFacts
from llorch.gguf.memory_estimate import LoadShape, estimate, estimate_split
from llorch.gguf.model_file import read_model
from llorch.rpc import model_facts
from orchestratord.core.facts.memory_estimate import estimate_mib, estimate_split_mib
from orchestratord.core.facts.model import Model, ModelSpec, Origin
from pool_managerd.convert.models import to_complete_progress
from pool_managerd.models.located_model import LocatedModel
from support.tiny_models import GENERATING, write_tiny_model

LOADS = ((4096, 4, CacheType.F16), (32768, 1, CacheType.Q8_0), (8192, 16, CacheType.Q4_0))


def model(**fields: object) -> Model:
    return Model(ModelSpec("m", "file:/m.gguf", **fields), Origin.FILE, "test", 0.0)  # type: ignore[arg-type]  # the test knows them


def known(facts: FileFacts, path: Path, **fields: object) -> Model:
    """A model of which the node that has its file has told."""
    described = model(**fields)
    told = to_complete_progress(LocatedModel("file:/m.gguf", path, facts))
    described.facts = model_facts.from_proto(told.facts)
    return described


def test_with_the_files_facts_it_is_what_the_formula_says(tmp_path: Path) -> None:
    for architecture in GENERATING:
        path = write_tiny_model(tmp_path, architecture)
        facts = read_model(path)
        for context, slots, cache_type in LOADS:
            described = known(facts, path, context=context, slots=slots, cache_type=cache_type)
            shape = LoadShape(slots, context, cache_type, cache_type)
            ours = estimate_split_mib(described, 100, context, (1.0,), DeviceKind.CUDA)
            assert ours == (estimate(facts, shape).total_mib,), (architecture, context)


def test_a_set_of_devices_is_told_apart(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path, "llama")
    facts = read_model(path)
    described = known(facts, path, context=32768, slots=4)
    shares = (2.0, 1.0)
    formula = tuple(part.total_mib for part in estimate_split(facts, LoadShape(4, 32768), shares))
    assert estimate_split_mib(described, 100, 32768, shares, DeviceKind.CUDA) == formula


def test_the_host_needs_no_runtime_of_a_gpu(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path, "llama")
    described = known(read_model(path), path)
    (on_gpu,) = estimate_split_mib(described, 100, 4096, (1.0,), DeviceKind.SIMULATED)
    (on_cpu,) = estimate_split_mib(described, 100, 4096, (1.0,), DeviceKind.CPU)
    assert on_gpu - on_cpu == pytest.approx(450, abs=50)


def test_without_facts_the_size_has_to_do() -> None:
    usual = {"context": 4096}
    small, large = estimate_mib(model(**usual), 1000), estimate_mib(model(**usual), 8000)
    assert 1000 < small < 8000 < large
    assert (
        estimate_mib(model(context=32768), 1000) > small > estimate_mib(model(cache_type=CacheType.Q4_0, **usual), 1000)
    )


def test_a_claim_of_the_owner_wins(tmp_path: Path) -> None:
    assert estimate_mib(model(vram_claim_mib=7), 1000) == 7
    assert estimate_split_mib(model(vram_claim_mib=7), 1000, 4096, (2, 1), DeviceKind.CUDA) == (5, 3)


def test_without_facts_every_device_of_a_set_has_a_runtime_of_its_own() -> None:
    (whole,) = estimate_split_mib(model(), 8000, 4096, (1.0,), DeviceKind.CUDA)
    halves = estimate_split_mib(model(), 8000, 4096, (1.0, 1.0), DeviceKind.CUDA)
    assert sum(halves) == pytest.approx(whole + 450, abs=2)
