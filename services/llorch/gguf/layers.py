"""What every layer of a model keeps for a sequence: keys and values, a window of them, or a state. Pure.

The rules are those of the pinned llama.cpp (`llama-hparams.cpp`, `src/models/*.cpp`). An architecture that is not known
here is taken to attend to the whole context: that errs on the high side. Not so for one that keeps nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from llorch.gguf.cursor import Malformed
from llorch.gguf.header import Tensor
from llorch.gguf.metadata import Metadata

_F32_BYTES = 4
_LAYER_PREFIX = "blk."


@dataclass(frozen=True, slots=True)
class Layer:
    """`key_width` and `value_width` are the numbers that the KV cache holds per token, 0 without one; `windowed` layers
    hold only the last of them. `state_bytes` is the recurrent state of a sequence, of fixed size. `kv_heads` is known
    to the reader of the file alone.
    """

    heads: int
    key_width: int
    value_width: int
    windowed: bool
    state_bytes: int
    weight_bytes: int
    kv_heads: int = 0


@dataclass(frozen=True, slots=True)
class _WindowRule:
    """Every `period`-th layer attends to all, the last of each period, or the first with `dense_first`.

    `window` is for files that do not say it.
    """

    period: int
    dense_first: bool = False
    window: int = 0


_WINDOW_RULES: Mapping[str, _WindowRule] = {
    "afmoe": _WindowRule(4),
    "cohere2": _WindowRule(4),
    "cohere2moe": _WindowRule(4, dense_first=True),
    "exaone-moe": _WindowRule(4, window=128),
    "gemma2": _WindowRule(2, window=4096),
    "gemma3": _WindowRule(6),
    "gemma3n": _WindowRule(5),
    "gemma-embedding": _WindowRule(6),
    "gpt-oss": _WindowRule(2),
    "llama4": _WindowRule(4, window=8192),
    "mellum": _WindowRule(4),
    "modern-bert": _WindowRule(3, dense_first=True),
    "olmo2": _WindowRule(4),
    "plamo3": _WindowRule(8),
    "smallthinker": _WindowRule(4, dense_first=True, window=4096),
}
"""For files without a list of their own in `attention.sliding_window_pattern`."""

_ALWAYS_WHOLE = frozenset({"phi3", "phimoe"})
"""They name a window that llama.cpp does not use."""

_RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
_RECURRENT_AND_ATTENTION = frozenset({"falcon-h1"})
_WITH_FULL_ATTENTION_INTERVAL = frozenset({"qwen3next", "qwen35", "qwen35moe", "qwen4exp"})
_DEFAULT_FULL_ATTENTION_INTERVAL = 4
_KV_FROM_START = {"gemma3n": 20}
"""Later layers use the keys and values of earlier ones."""

_WITHOUT_MEMORY = frozenset(
    {
        "bert",
        "dream",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llada",
        "llada-moe",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "rnd1",
        "wavtokenizer-dec",
    }
)
"""Nothing is kept of a text; it is always evaluated as a whole. An architecture that is missing here is refused when it
is loaded, since its vectors would be wrong. `reading` knows which of them compute no logits.
"""


def read_layers(metadata: Metadata, tensors: Mapping[str, Tensor]) -> tuple[Layer, ...]:
    """Raises Malformed."""
    count = metadata.layer_count
    heads = metadata.per_layer("attention.head_count", count)
    kv_heads = metadata.per_layer("attention.head_count_kv", count) if _says_kv_heads(metadata) else heads
    recurrent = _recurrent_layers(metadata, kv_heads)
    windowed = _windowed_layers(metadata, count)
    with_kv = _layers_with_kv(metadata, count)
    state = state_bytes(metadata, max(heads, default=0))
    weights = _weights_by_layer(tensors, count)
    layers = []
    for number in range(count):
        attends = not recurrent[number] or metadata.architecture in _RECURRENT_AND_ATTENTION
        holds = number < with_kv and attends
        key, value = _head_widths(metadata, heads, windowed=windowed[number]) if holds else (0, 0)
        layers.append(
            Layer(
                heads=heads[number],
                kv_heads=kv_heads[number],
                key_width=key * kv_heads[number],
                value_width=value * kv_heads[number],
                windowed=windowed[number],
                state_bytes=state if recurrent[number] else 0,
                weight_bytes=weights[number],
            )
        )
    if not any(layer.key_width or layer.state_bytes for layer in layers):
        _refuse_if_it_should_keep_something(metadata, heads, kv_heads)
    return tuple(layers)


def _refuse_if_it_should_keep_something(metadata: Metadata, heads: tuple[int, ...], kv_heads: tuple[int, ...]) -> None:
    """Without it llama.cpp would divide by zero, and the model would be taken for one of embeddings."""
    if not any(heads):
        raise metadata.zero("attention.head_count")
    if metadata.architecture in _WITHOUT_MEMORY:
        return
    if not any(kv_heads):
        raise metadata.zero("attention.head_count_kv")
    if metadata.has("attention.key_length"):
        raise metadata.zero("attention.key_length")
    embedding = metadata.whole("embedding_length", 1, 1 << 24)
    raise Malformed(f"has {max(heads)} heads (attention.head_count) for embeddings of {embedding} numbers")


def is_bidirectional(metadata: Metadata) -> bool:
    """Whether a token sees those after it, too."""
    says_so = metadata.values.get(f"{metadata.architecture}.attention.causal") is False
    return says_so or metadata.architecture in _WITHOUT_MEMORY


def window_of(metadata: Metadata) -> int:
    """Tokens that windowed layers look back; 0 without a window."""
    rule = _WINDOW_RULES.get(metadata.architecture)
    return metadata.whole("attention.sliding_window", 0, 1 << 31, default=rule.window if rule else 0)


def state_bytes(metadata: Metadata, heads: int) -> int:
    """The state of one recurrent layer and one sequence; always stored as 32-bit floats."""
    embedding = metadata.whole("embedding_length", 1, 1 << 24)
    wkv = metadata.whole("wkv.head_size", 0, 1 << 16, default=0)
    short_convolution = metadata.whole("shortconv.l_cache", 0, 1 << 16, default=0)
    kda = metadata.whole("kda.head_dim", 0, 1 << 16, default=0)
    kernel = metadata.whole("ssm.conv_kernel", 0, 1 << 16, default=0)
    inner = metadata.whole("ssm.inner_size", 0, 1 << 24, default=0)
    state = metadata.whole("ssm.state_size", 0, 1 << 16, default=0)
    groups = metadata.whole("ssm.group_count", 0, 1 << 16, default=0)
    if wkv:
        shift = metadata.whole("token_shift_count", 0, 1 << 8, default=2)
        return _F32_BYTES * embedding * (shift + wkv)
    if short_convolution:
        return _F32_BYTES * (embedding * (short_convolution - 1) + state * inner)
    if kda:
        return _F32_BYTES * (3 * max(kernel - 1, 0) * heads * kda + kda * kda * heads)
    return _F32_BYTES * (max(kernel - 1, 0) * (inner + 2 * groups * state) + state * inner)


def _says_kv_heads(metadata: Metadata) -> bool:
    return metadata.has("attention.head_count_kv")


def _recurrent_layers(metadata: Metadata, kv_heads: tuple[int, ...]) -> tuple[bool, ...]:
    count = len(kv_heads)
    if metadata.architecture in _RECURRENT | _RECURRENT_AND_ATTENTION:
        return (True,) * count
    if metadata.architecture in _WITH_FULL_ATTENTION_INTERVAL:
        listed = metadata.flags_per_layer("attention.recurrent_layers", count)
        if listed is not None:
            return listed
        interval = metadata.whole(
            "full_attention_interval", 1, count, default=min(count, _DEFAULT_FULL_ATTENTION_INTERVAL)
        )
        return tuple((number + 1) % interval != 0 for number in range(count))
    feed_forward = metadata.per_layer("feed_forward_length", count)
    by_lists = metadata.architecture.startswith("nemotron_h")
    return tuple(heads == 0 and not (by_lists and wide) for heads, wide in zip(kv_heads, feed_forward, strict=True))


def _windowed_layers(metadata: Metadata, count: int) -> tuple[bool, ...]:
    if window_of(metadata) == 0 or metadata.architecture in _ALWAYS_WHOLE:
        return (False,) * count
    listed = metadata.flags_per_layer("attention.sliding_window_pattern", count)
    if listed is not None:
        return listed
    rule = _WINDOW_RULES.get(metadata.architecture)
    if rule is None:
        return (False,) * count
    period = metadata.whole("attention.sliding_window_pattern", 0, count, default=rule.period)
    whole_at = 0 if rule.dense_first else period - 1
    return tuple(period == 0 or number % period != whole_at for number in range(count))


def _layers_with_kv(metadata: Metadata, count: int) -> int:
    """How many of the first layers have a cache of their own; encoders have none."""
    if metadata.architecture in _WITHOUT_MEMORY:
        return 0
    shared = metadata.whole("attention.shared_kv_layers", 0, count, default=0)
    return min(count - shared, _KV_FROM_START.get(metadata.architecture, count))


def _head_widths(metadata: Metadata, heads: tuple[int, ...], *, windowed: bool) -> tuple[int, int]:
    """Numbers per head for a key and a value. With latent attention only keys are kept."""
    first = heads[0] or max(heads)
    even = metadata.whole("embedding_length", 1, 1 << 24) // first if first else 0
    key = metadata.whole("attention.key_length", 0, 1 << 16, default=even)
    value = metadata.whole("attention.value_length", 0, 1 << 16, default=even)
    if windowed:
        key = metadata.whole("attention.key_length_swa", 0, 1 << 16, default=key)
        value = metadata.whole("attention.value_length_swa", 0, 1 << 16, default=value)
    return key, 0 if metadata.has("attention.key_length_mla") else value


def _weights_by_layer(tensors: Mapping[str, Tensor], count: int) -> list[int]:
    weights = [0] * count
    for name, tensor in tensors.items():
        if name.startswith(_LAYER_PREFIX):
            number = name[len(_LAYER_PREFIX) :].partition(".")[0]
            if number.isascii() and number.isdigit() and len(number) <= 4 and int(number) < count:
                weights[int(number)] += tensor.size_bytes
    return weights
