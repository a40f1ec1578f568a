"""Models of a few MB with random weights, one for each kind of architecture, that the engine loads and decodes.

What they say is nonsense, but always the same nonsense for the same input: good enough for everything but meaning.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from support.gguf_writer import MetadataValue, TensorData, write_gguf

LAYERS = 4
WIDTH = 128
HEADS = 4
KV_HEADS = 2
HEAD = 32
FEED_FORWARD = 256
CONTEXT_TRAINED = 8192
WINDOW = 64
EXPERTS = 4
NO_POOLING, MEAN, CLS, LAST, RANK = range(5)

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
ENDLESS_TEMPLATE = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}"
    "{% endfor %}{{ messages[0]['content'] }}"
)

Metadata = dict[str, MetadataValue]
Tensors = dict[str, TensorData]

_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
WORDS = """
    the of and to in is that it was for on are with as his they at be this from have or by one had not but what all
    were when we there can an your which their said if do will each about how up out them then she many some so these
    would other into has more her two like him see time could no make than first been its who now people my made over
    did down only way find use may water long little very after words called just where most know word hello yes
""".split()  # noqa: SIM905  a hundred quotation marks would not help
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'\"()[]{}<>|/\\_-+*=&%$#@~^`"


class _Weights:
    """Random numbers of a fixed seed; every tensor of every model gets other ones."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def matrix(self, rows: int, columns: int, scale: float = 1.0) -> NDArray[np.float32]:
        """Keeps the size of what it is multiplied with."""
        numbers: NDArray[np.float32] = self._random.standard_normal((rows, columns), np.float32)
        return numbers * np.float32(scale / columns**0.5)

    def experts(self, rows: int, columns: int) -> NDArray[np.float32]:
        return np.stack([self.matrix(rows, columns) for _ in range(EXPERTS)])

    def ones(self, length: int) -> NDArray[np.float32]:
        return (1 + 0.1 * self._random.standard_normal(length)).astype(np.float32)

    def small(self, length: int) -> NDArray[np.float32]:
        return (0.1 * self._random.standard_normal(length)).astype(np.float32)


def write_tiny_model(folder: Path, architecture: str, *, chat_template: str = CHATML, seed: int = 1) -> Path:
    """One of ARCHITECTURES, as `folder`/tiny-ARCHITECTURE.gguf."""
    metadata, tensors = tiny_model(architecture, chat_template=chat_template, seed=seed)
    return write_gguf(folder / f"tiny-{architecture}.gguf", metadata, tensors)


def write_tiny_reader(
    folder: Path, architecture: str, pooling: int, *, rank_template: str = "", context: int = 0
) -> Path:
    """One that was trained for vectors, or for scores where `pooling` is RANK; the number is that of GGUF files.

    With a `context` it was trained with as many tokens.
    """
    metadata, tensors = tiny_model(architecture)
    metadata |= {f"{architecture}.pooling_type": pooling}
    if context:
        metadata |= {f"{architecture}.context_length": context}
        tensors |= {"position_embd.weight": _Weights(5).matrix(context, WIDTH, 2.0)} if architecture == "bert" else {}
    metadata |= {"tokenizer.chat_template.rerank": rank_template} if rank_template else {}
    weights = _Weights(7)
    if pooling == RANK and architecture == "bert":
        tensors |= {"cls.weight": weights.matrix(WIDTH, WIDTH), "cls.bias": weights.small(WIDTH)}
        tensors |= {"cls.output.weight": weights.matrix(1, WIDTH, 4.0), "cls.output.bias": weights.small(1)}
    elif pooling == RANK:
        metadata |= {f"{architecture}.classifier.output_labels": ["yes", "no"]}
        tensors |= {"cls.output.weight": weights.matrix(2, WIDTH, 4.0)}
    return write_gguf(folder / f"tiny-{architecture}-{pooling}.gguf", metadata, tensors)


def tiny_model(architecture: str, *, chat_template: str = CHATML, seed: int = 1) -> tuple[Metadata, Tensors]:
    """What is in its file."""
    metadata, tensors = ARCHITECTURES[architecture](_Weights(seed))
    general: Metadata = {
        "general.architecture": architecture,
        "general.name": f"tiny {architecture}",
        "general.file_type": 0,
    }
    own = {f"{architecture}.{key}": value for key, value in metadata.items()}
    vocabulary = _word_pieces() if architecture == "bert" else _sentence_pieces(chat_template)
    return {**general, **own, **vocabulary}, tensors


def _llama(weights: _Weights) -> tuple[Metadata, Tensors]:
    tensors = _embeddings(weights)
    for number in range(LAYERS):
        tensors |= _named(number, _attention(weights) | _gated_feed_forward(weights))
    return _attention_metadata() | {"rope.dimension_count": HEAD}, tensors


def _gemma2(weights: _Weights) -> tuple[Metadata, Tensors]:
    """Every other layer sees a window only. The architecture itself enlarges the embeddings."""
    tensors = _embeddings(weights, tied=True, scale=0.2)
    for number in range(LAYERS):
        norms: Tensors = {"post_attention_norm": weights.ones(WIDTH), "post_ffw_norm": weights.ones(WIDTH)}
        tensors |= _named(number, _attention(weights) | norms | _gated_feed_forward(weights))
    return _attention_metadata() | {
        "attention.sliding_window": WINDOW,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    }, tensors


def _gemma3(weights: _Weights) -> tuple[Metadata, Tensors]:
    """Five of six layers see a window only, so that here all do."""
    tensors = _embeddings(weights, tied=True, scale=0.2)
    for number in range(LAYERS):
        norms: Tensors = {"post_attention_norm": weights.ones(WIDTH), "post_ffw_norm": weights.ones(WIDTH)}
        tensors |= _named(number, _attention(weights) | _norms_of_heads(weights) | norms | _gated_feed_forward(weights))
    return _attention_metadata() | {"attention.sliding_window": WINDOW}, tensors


def _qwen3(weights: _Weights) -> tuple[Metadata, Tensors]:
    tensors = _embeddings(weights)
    for number in range(LAYERS):
        tensors |= _named(number, _attention(weights) | _norms_of_heads(weights) | _gated_feed_forward(weights))
    return _attention_metadata(), tensors


def _qwen3moe(weights: _Weights) -> tuple[Metadata, Tensors]:
    """Two of four experts for each token."""
    tensors = _embeddings(weights)
    for number in range(LAYERS):
        experts: Tensors = {
            "ffn_norm": weights.ones(WIDTH),
            "ffn_gate_inp": weights.matrix(EXPERTS, WIDTH, 4.0),
            "ffn_gate_exps": weights.experts(FEED_FORWARD, WIDTH),
            "ffn_up_exps": weights.experts(FEED_FORWARD, WIDTH),
            "ffn_down_exps": weights.experts(WIDTH, FEED_FORWARD),
        }
        tensors |= _named(number, _attention(weights) | _norms_of_heads(weights) | experts)
    return _attention_metadata() | {
        "expert_count": EXPERTS,
        "expert_used_count": 2,
        "expert_feed_forward_length": FEED_FORWARD,
    }, tensors


def _mamba(weights: _Weights) -> tuple[Metadata, Tensors]:
    """Nothing but recurrent states."""
    tensors = _embeddings(weights, tied=True)
    for number in range(LAYERS):
        tensors |= _named(number, _state_space(weights))
    metadata: Metadata = {
        "context_length": CONTEXT_TRAINED,
        "embedding_length": WIDTH,
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "block_count": LAYERS,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }
    return metadata | _state_space_metadata(), tensors


def _jamba(weights: _Weights) -> tuple[Metadata, Tensors]:
    """Recurrent states and attention in turn."""
    tensors = _embeddings(weights)
    for number in range(LAYERS):
        norms: Tensors = {
            "ssm_dt_norm": weights.ones(_RANK),
            "ssm_b_norm": weights.ones(_STATE),
            "ssm_c_norm": weights.ones(_STATE),
        }
        mixer = _attention(weights) if number % 2 else _state_space(weights) | norms
        tensors |= _named(number, mixer | _gated_feed_forward(weights))
    kv_heads = [KV_HEADS if number % 2 else 0 for number in range(LAYERS)]
    return _attention_metadata() | {"attention.head_count_kv": kv_heads} | _state_space_metadata(), tensors


def _bert(weights: _Weights) -> tuple[Metadata, Tensors]:
    """Embeds texts, generates none."""
    tensors: Tensors = {
        "token_embd.weight": weights.matrix(len(_word_piece_tokens()), WIDTH, 8.0),
        "token_types.weight": weights.matrix(2, WIDTH),
        "position_embd.weight": weights.matrix(512, WIDTH, 2.0),
        "token_embd_norm.weight": weights.ones(WIDTH),
        "token_embd_norm.bias": weights.small(WIDTH),
    }
    for number in range(LAYERS):
        layer: Tensors = {f"attn_{name}": weights.matrix(WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        layer |= {"ffn_up": weights.matrix(FEED_FORWARD, WIDTH), "ffn_down": weights.matrix(WIDTH, FEED_FORWARD)}
        layer |= {"attn_output_norm": weights.ones(WIDTH), "layer_output_norm": weights.ones(WIDTH)}
        tensors |= _named(number, layer)
        lengths = {"attn_q": WIDTH, "attn_k": WIDTH, "attn_v": WIDTH, "attn_output": WIDTH, "ffn_up": FEED_FORWARD}
        lengths |= {"ffn_down": WIDTH, "attn_output_norm": WIDTH, "layer_output_norm": WIDTH}
        tensors |= {f"blk.{number}.{name}.bias": weights.small(length) for name, length in lengths.items()}
    return {
        "context_length": 512,
        "embedding_length": WIDTH,
        "feed_forward_length": FEED_FORWARD,
        "block_count": LAYERS,
        "attention.head_count": HEADS,
        "attention.layer_norm_epsilon": 1e-12,
        "attention.causal": False,
        "pooling_type": 1,
    }, tensors


ARCHITECTURES: Mapping[str, Callable[[_Weights], tuple[Metadata, Tensors]]] = {
    "llama": _llama,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "qwen3": _qwen3,
    "qwen3moe": _qwen3moe,
    "mamba": _mamba,
    "jamba": _jamba,
    "bert": _bert,
}

GENERATING = tuple(name for name in ARCHITECTURES if name not in ("bert", "qwen3"))
"""Those that generate text, each with another kind of memory."""

_INNER, _STATE, _KERNEL, _RANK = 2 * WIDTH, 16, 4, 8


def _attention_metadata() -> Metadata:
    return {
        "context_length": CONTEXT_TRAINED,
        "embedding_length": WIDTH,
        "feed_forward_length": FEED_FORWARD,
        "block_count": LAYERS,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": HEAD,
        "attention.value_length": HEAD,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }


def _state_space_metadata() -> Metadata:
    return {
        "ssm.conv_kernel": _KERNEL,
        "ssm.inner_size": _INNER,
        "ssm.state_size": _STATE,
        "ssm.time_step_rank": _RANK,
    }


def _embeddings(weights: _Weights, *, tied: bool = False, scale: float = 8.0) -> Tensors:
    size = len(_sentence_piece_tokens())
    tensors: Tensors = {
        "token_embd.weight": weights.matrix(size, WIDTH, scale),
        "output_norm.weight": weights.ones(WIDTH),
    }
    return tensors if tied else tensors | {"output.weight": weights.matrix(size, WIDTH)}


def _attention(weights: _Weights) -> Tensors:
    return {
        "attn_norm": weights.ones(WIDTH),
        "attn_q": weights.matrix(HEADS * HEAD, WIDTH, 2.0),
        "attn_k": weights.matrix(KV_HEADS * HEAD, WIDTH, 2.0),
        "attn_v": weights.matrix(KV_HEADS * HEAD, WIDTH),
        "attn_output": weights.matrix(WIDTH, HEADS * HEAD),
    }


def _norms_of_heads(weights: _Weights) -> Tensors:
    return {"attn_q_norm": weights.ones(HEAD), "attn_k_norm": weights.ones(HEAD)}


def _gated_feed_forward(weights: _Weights) -> Tensors:
    return {
        "ffn_norm": weights.ones(WIDTH),
        "ffn_gate": weights.matrix(FEED_FORWARD, WIDTH),
        "ffn_up": weights.matrix(FEED_FORWARD, WIDTH),
        "ffn_down": weights.matrix(WIDTH, FEED_FORWARD),
    }


def _state_space(weights: _Weights) -> Tensors:
    decay = -np.tile(np.arange(1, _STATE + 1, dtype=np.float32), (_INNER, 1)) / np.float32(_STATE)
    return {
        "attn_norm": weights.ones(WIDTH),
        "ssm_in": weights.matrix(2 * _INNER, WIDTH),
        "ssm_conv1d": weights.matrix(_INNER, _KERNEL),
        "ssm_conv1d.bias": weights.small(_INNER),
        "ssm_x": weights.matrix(_RANK + 2 * _STATE, _INNER),
        "ssm_dt": weights.matrix(_INNER, _RANK),
        "ssm_dt.bias": weights.small(_INNER),
        "ssm_a.": decay,
        "ssm_d.": weights.ones(_INNER),
        "ssm_out": weights.matrix(WIDTH, _INNER),
    }


def _named(number: int, layer: Tensors) -> Tensors:
    """Full names; one that ends with a dot has no suffix, one with a dot inside has its own."""
    return {
        f"blk.{number}.{name}" if name.count(".") == 1 and not name.endswith(".") else _suffixed(number, name): data
        for name, data in layer.items()
    }


def _suffixed(number: int, name: str) -> str:
    return f"blk.{number}.{name[:-1]}" if name.endswith(".") else f"blk.{number}.{name}.weight"


def _sentence_piece_tokens() -> list[tuple[str, int]]:
    """Every text can be written with them: what has no token of its own goes by bytes."""
    special = [("<unk>", _UNKNOWN), ("<s>", _CONTROL), ("</s>", _CONTROL)]
    special += [("<|im_start|>", _CONTROL), ("<|im_end|>", _CONTROL)]
    byte_tokens = [(f"<0x{byte:02X}>", _BYTE) for byte in range(256)]
    # A word is put together letter by letter, so that all of its beginnings have to be there.
    beginnings = dict.fromkeys(f"▁{word[:end]}" for word in WORDS for end in range(len(word) + 1))
    return [
        *special,
        *byte_tokens,
        *((letter, _NORMAL) for letter in _LETTERS),
        *((text, _NORMAL) for text in beginnings),
    ]


def _sentence_pieces(chat_template: str) -> Metadata:
    tokens = _sentence_piece_tokens()
    metadata: Metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [text for text, _ in tokens],
        "tokenizer.ggml.scores": [-float(number) for number in range(len(tokens))],
        "tokenizer.ggml.token_type": [kind for _, kind in tokens],
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.eot_token_id": 4,
        "tokenizer.ggml.add_bos_token": True,
    }
    return metadata | ({"tokenizer.chat_template": chat_template} if chat_template else {})


def _word_piece_tokens() -> list[str]:
    letters = [letter for letter in _LETTERS if not letter.isupper()]
    words = [f"▁{word}" for word in WORDS if len(word) > 1]
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"▁{letter}" for letter in letters), *words]


def _word_pieces() -> Metadata:
    tokens = _word_piece_tokens()
    return {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [
            _CONTROL if text.startswith("[") and len(text) > 1 else _NORMAL for text in tokens
        ],
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.cls_token_id": 2,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.eos_token_id": 3,
        "tokenizer.ggml.mask_token_id": 4,
    }
