"""Between `ModelFacts` and the contract's."""

from llama_orch.v2 import pool_manager_service_pb2
from llorch.gguf.facts import ModelFacts
from llorch.gguf.layers import Layer
from llorch.rpc.enum_tables import POOLINGS
from llorch.rpc.mirror import Mirror

# Heads of keys and values matter to the reader of the file alone: the widths follow from them.
_LAYERS = Mirror(Layer, pool_manager_service_pb2.LayerFacts, unused={"kv_heads"})
_FACTS = Mirror(ModelFacts, pool_manager_service_pb2.ModelFacts, enums=(POOLINGS,), parts={"layers": _LAYERS})


def to_proto(facts: ModelFacts) -> pool_manager_service_pb2.ModelFacts:
    return _FACTS.to_proto(facts)


def from_proto(message: pool_manager_service_pb2.ModelFacts) -> ModelFacts | None:
    """None from a pool manager that does not tell of the layers."""
    return _FACTS.from_proto(message) if message.layers else None
