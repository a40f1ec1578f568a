"""Between `ModelFacts` and the contract's."""

from llama_orch.v2 import pool_manager_service_pb2
from llorch.gguf.facts import ModelFacts
from llorch.gguf.layers import Layer
from llorch.gguf.memory_estimate import BATCH_TOKENS, LoadShape, estimate
from llorch.rpc.mirror import Mirror

_MIB = 2**20

# Heads of keys and values matter to the reader of the file alone: the widths follow from them.
_LAYERS = Mirror(Layer, pool_manager_service_pb2.LayerFacts, unused={"kv_heads"})
_SUMS = {
    "weights_mib",
    "kv_bytes_per_token",
    "window_kv_bytes_per_token",
    "window_tokens",
    "state_kib_per_slot",
    "compute_mib",
}
_FACTS = Mirror(ModelFacts, pool_manager_service_pb2.ModelFacts, parts={"layers": _LAYERS}, unused=_SUMS)


def to_proto(facts: ModelFacts) -> pool_manager_service_pb2.ModelFacts:
    """With sums for one token in one slot, so that who decides on slots and contexts can multiply."""
    message = _FACTS.to_proto(facts)
    whole = estimate(facts, LoadShape(slots=1, context_per_slot=1))
    token_kv = [2 * (layer.key_width + layer.value_width) for layer in facts.layers]
    windowed = sum(size for size, layer in zip(token_kv, facts.layers, strict=True) if layer.windowed)
    message.weights_mib = -(-whole.weights // _MIB)
    message.kv_bytes_per_token = sum(token_kv) - windowed
    message.window_kv_bytes_per_token = windowed
    message.window_tokens = facts.window + BATCH_TOKENS if windowed else 0
    message.state_kib_per_slot = -(-whole.state // 1024)
    message.compute_mib = -(-whole.compute // _MIB)
    return message


def from_proto(message: pool_manager_service_pb2.ModelFacts) -> ModelFacts | None:
    """None from a pool manager that does not tell of the layers."""
    return _FACTS.from_proto(message) if message.layers else None
