"""Models of the sizes that people use, as files without data: for what follows from a header alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from support.gguf_writer import Hollow, MetadataValue, TensorData, write_gguf

Metadata = dict[str, MetadataValue]
Tensors = dict[str, TensorData]


@dataclass(frozen=True, slots=True)
class Size:
    """Numbers as a model card has them. `head` is the width of one; `window` 0 where all layers see everything."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head: int
    feed_forward: int
    vocabulary: int
    context: int
    window: int = 0


def write_hollow_model(
    folder: Path, architecture: str, size: Size, *, pooling: int = 0, is_bidirectional: bool = False
) -> Path:
    """One of `_TENSORS`. `pooling` is the number that the file has for it; 0 leaves it out."""
    own: Metadata = {
        "context_length": size.context,
        "embedding_length": size.width,
        "feed_forward_length": size.feed_forward,
        "block_count": size.layers,
        "attention.head_count": size.heads,
        "attention.head_count_kv": size.kv_heads,
        "attention.key_length": size.head,
        "attention.value_length": size.head,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.layer_norm_epsilon": 1e-12,
    }
    own |= {"pooling_type": pooling} if pooling else {}
    own |= {"attention.sliding_window": size.window} if size.window else {}
    is_encoder = "bert" in architecture
    own |= {} if is_encoder else {"rope.dimension_count": size.head}
    own |= {"attention.causal": False} if is_encoder or is_bidirectional else {}
    metadata: Metadata = {"general.architecture": architecture}
    metadata |= {f"{architecture}.{key}": value for key, value in own.items()}
    metadata |= _vocabulary(size.vocabulary, words=is_encoder)
    tensors: Tensors = _TENSORS[architecture](size)
    return write_gguf(folder / f"{architecture}-{size.layers}-{size.width}-{size.vocabulary}.gguf", metadata, tensors)


def _vocabulary(entries: int, *, words: bool) -> Metadata:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] if words else ["<unk>", "<s>", "</s>", "<0x0A>"]
    metadata: Metadata = {
        "tokenizer.ggml.model": "bert" if words else "llama",
        "tokenizer.ggml.tokens": special + [f"t{number}" for number in range(entries - len(special))],
        "tokenizer.ggml.token_type": [3] * len(special) + [1] * (entries - len(special)),
    }
    if words:
        return metadata | {"tokenizer.ggml.token_type_count": 2}
    return metadata | {"tokenizer.ggml.scores": [-float(number) for number in range(entries)]}


def _generating(size: Size, *, tied: bool = False, norms_of_heads: bool = False, more_norms: bool = False) -> Tensors:
    tensors: Tensors = {
        "token_embd.weight": Hollow((size.vocabulary, size.width), "q8_0"),
        "output_norm.weight": Hollow((size.width,), "f32"),
    }
    if not tied:
        tensors["output.weight"] = Hollow((size.vocabulary, size.width), "q8_0")
    layer = {
        "attn_q": (size.heads * size.head, size.width),
        "attn_k": (size.kv_heads * size.head, size.width),
        "attn_v": (size.kv_heads * size.head, size.width),
        "attn_output": (size.width, size.heads * size.head),
        "ffn_gate": (size.feed_forward, size.width),
        "ffn_up": (size.feed_forward, size.width),
        "ffn_down": (size.width, size.feed_forward),
    }
    norms = ["attn_norm", "ffn_norm"] + (["post_attention_norm", "post_ffw_norm"] if more_norms else [])
    of_heads = ["attn_q_norm", "attn_k_norm"] if norms_of_heads else []
    for number in range(size.layers):
        tensors |= {f"blk.{number}.{name}.weight": Hollow(shape) for name, shape in layer.items()}
        tensors |= {f"blk.{number}.{name}.weight": Hollow((size.width,), "f32") for name in norms}
        tensors |= {f"blk.{number}.{name}.weight": Hollow((size.head,), "f32") for name in of_heads}
    return tensors


def _bert(size: Size) -> Tensors:
    tensors: Tensors = {
        "token_embd.weight": Hollow((size.vocabulary, size.width), "q8_0"),
        "token_types.weight": Hollow((2, size.width), "f32"),
        "position_embd.weight": Hollow((size.context, size.width), "f32"),
        "token_embd_norm.weight": Hollow((size.width,), "f32"),
        "token_embd_norm.bias": Hollow((size.width,), "f32"),
    }
    square = (size.width, size.width)
    layer = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), square)
    layer |= {"ffn_up": (size.feed_forward, size.width), "ffn_down": (size.width, size.feed_forward)}
    norms = ("attn_output_norm", "layer_output_norm")
    for number in range(size.layers):
        tensors |= {f"blk.{number}.{name}.weight": Hollow(shape, "q8_0") for name, shape in layer.items()}
        tensors |= {f"blk.{number}.{name}.bias": Hollow(shape[:1], "f32") for name, shape in layer.items()}
        tensors |= {f"blk.{number}.{name}.weight": Hollow((size.width,), "f32") for name in norms}
        tensors |= {f"blk.{number}.{name}.bias": Hollow((size.width,), "f32") for name in norms}
    return tensors


def _nomic_bert(size: Size) -> Tensors:
    """Its positions are rotations, its feed-forward is gated, and keys, queries and values are one matrix."""
    tensors: Tensors = {
        "token_embd.weight": Hollow((size.vocabulary, size.width), "q8_0"),
        "token_types.weight": Hollow((2, size.width), "f32"),
        "token_embd_norm.weight": Hollow((size.width,), "f32"),
        "token_embd_norm.bias": Hollow((size.width,), "f32"),
    }
    layer = {
        "attn_qkv": (3 * size.width, size.width),
        "attn_output": (size.width, size.width),
        "ffn_gate": (size.feed_forward, size.width),
        "ffn_up": (size.feed_forward, size.width),
        "ffn_down": (size.width, size.feed_forward),
    }
    norms = ("attn_output_norm", "layer_output_norm")
    for number in range(size.layers):
        tensors |= {f"blk.{number}.{name}.weight": Hollow(shape, "q8_0") for name, shape in layer.items()}
        tensors |= {
            f"blk.{number}.{name}.{part}": Hollow((size.width,), "f32") for name in norms for part in ("weight", "bias")
        }
    return tensors


def _modern_bert(size: Size) -> Tensors:
    """Two of three layers see a window. The gate is in one matrix with what it lets through."""
    tensors: Tensors = {
        "token_embd.weight": Hollow((size.vocabulary, size.width), "q8_0"),
        "token_embd_norm.weight": Hollow((size.width,), "f32"),
        "output_norm.weight": Hollow((size.width,), "f32"),
    }
    layer = {
        "attn_qkv": (3 * size.width, size.width),
        "attn_output": (size.width, size.width),
        "ffn_up": (2 * size.feed_forward, size.width),
        "ffn_down": (size.width, size.feed_forward),
    }
    for number in range(size.layers):
        tensors |= {f"blk.{number}.{name}.weight": Hollow(shape, "q8_0") for name, shape in layer.items()}
        norms = ("attn_norm", "ffn_norm") if number else ("ffn_norm",)
        tensors |= {f"blk.{number}.{name}.weight": Hollow((size.width,), "f32") for name in norms}
    return tensors


_TENSORS: Mapping[str, Callable[[Size], Tensors]] = {
    "llama": _generating,
    "qwen3": lambda size: _generating(size, tied=True, norms_of_heads=True),
    "gemma3": lambda size: _generating(size, tied=True, norms_of_heads=True, more_norms=True),
    "bert": _bert,
    "modern-bert": _modern_bert,
    "nomic-bert": _nomic_bert,
}
