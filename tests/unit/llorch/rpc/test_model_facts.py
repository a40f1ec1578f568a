"""What the memory of a model follows from, over the wire."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from llama_orch.v2 import pool_manager_service_pb2
from llorch.gguf.facts import ModelFacts
from llorch.gguf.model_file import read_model
from llorch.rpc import model_facts
from support.tiny_models import GENERATING, write_tiny_model


@pytest.mark.parametrize("architecture", GENERATING)
def test_what_a_file_says_comes_over_without_what_only_its_reader_needs(tmp_path: Path, architecture: str) -> None:
    read = read_model(write_tiny_model(tmp_path, architecture))
    told = model_facts.from_proto(model_facts.to_proto(read))
    layers = tuple(replace(layer, kv_heads=0) for layer in read.layers)
    assert told == ModelFacts(
        **{field.name: getattr(read, field.name) for field in fields(ModelFacts)} | {"layers": layers}
    )


def test_nothing_is_known_from_a_pool_manager_that_tells_of_no_layers() -> None:
    assert model_facts.from_proto(pool_manager_service_pb2.ModelFacts(architecture="llama")) is None
