"""What an owner says of a model, from the contract and back."""

import pytest

from llama_orch.v2 import model_pb2, worker_pb2
from llorch.cache_type import CacheType
from llorch.device_kind import DeviceKind
from llorch.engines import ENGINES, EngineName, EngineTraits
from llorch.errors import InvalidArgument, Reason
from llorch.split_mode import SplitMode
from orchestratord.convert import models
from orchestratord.core.facts.model import Model, ModelSpec, Origin
from orchestratord.views.models import ModelView

MESSAGE = model_pb2.ModelSpec(
    name="coder",
    source="file:/c.gguf",
    aliases=["gpt-4o"],
    context=8192,
    slots=2,
    cache_type=worker_pb2.CACHE_TYPE_Q8_0,
    split=model_pb2.SPLIT_MODE_LAYER,
    split_shares=[24, 12],
    idle_unload_ms=900_500,
    vram_claim_mib=11_264,
    engine="sim",
)
SPEC = ModelSpec(
    "coder",
    "file:/c.gguf",
    ("gpt-4o",),
    8192,
    2,
    CacheType.Q8_0,
    SplitMode.LAYER,
    (24.0, 12.0),
    900.5,
    11_264,
    engine="sim",
)


def shown(spec: ModelSpec) -> model_pb2.ModelSpec:
    model = Model(spec, Origin.CALL, "a test", 0)
    return models.to_proto(ModelView(model, model.known_context, 0)).spec


def test_everything_that_is_said_arrives_and_is_shown_again() -> None:
    assert models.to_spec(MESSAGE) == SPEC
    assert shown(SPEC) == MESSAGE


def test_what_is_not_said_is_left_open_and_shown_by_its_default() -> None:
    said = model_pb2.ModelSpec(name="coder", source="file:/c.gguf")
    assert models.to_spec(said) == ModelSpec("coder", "file:/c.gguf")
    found = shown(models.to_spec(said))
    said.slots, said.cache_type, said.split = 4, worker_pb2.CACHE_TYPE_F16, model_pb2.SPLIT_MODE_AUTO
    assert found == said


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"engine": "vllm"}, "engine: is 'vllm'; it has to be one of: llama_cpp, sim"),
        ({"split": 99}, "split: has to be SPLIT_MODE_AUTO"),
    ],
)
def test_what_is_not_known_is_refused_with_what_is(wrong: dict[str, object], told: str) -> None:
    message = model_pb2.ModelSpec(name="coder", source="file:/c.gguf", **wrong)  # type: ignore[arg-type]  # names fields
    with pytest.raises(InvalidArgument, match=told):
        models.to_spec(message)


def test_a_source_that_the_named_engine_does_not_take_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    remote = EngineTraits(frozenset({DeviceKind.SIMULATED}), ("https:",))
    monkeypatch.setattr(models, "ENGINES", {**ENGINES, EngineName.sim: remote})
    with pytest.raises(InvalidArgument, match="no kind that engine sim takes; begin it with one of: https:") as refused:
        models.to_spec(MESSAGE)
    assert refused.value.reason is Reason.UNSUPPORTED_SOURCE
    models.to_spec(model_pb2.ModelSpec(name="coder", source="file:/c.gguf", engine="llama_cpp"))
