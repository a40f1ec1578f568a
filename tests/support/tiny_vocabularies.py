"""Vocabularies of every kind that tokenizes in its own way, in the smallest models that the library loads.

Each has control tokens, of which one is the beginning of another, and tokens that stand for themselves in every text.
What is said with them has no meaning, since the weights are zeros.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np

from support.gguf_writer import MetadataValue, TensorData, write_gguf

Metadata = dict[str, MetadataValue]

CONTROL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "[INST]", "<|a|>", "<|b|>", "<|b|>x", "<|endoftext|>")
"""The first begins a text, the second ends it."""
USER_DEFINED = ("<tool>", "\n\n\n")
"""Found in every text, whoever wrote it."""

_NOTHING, _NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 0, 1, 2, 3, 4, 6
_WORDS = ("hello", "world", "user", "assistant", "the", "end", "sys", "in", "im", "tart", "ab", "no")
_WIDTH = 32


def write_vocabulary(
    folder: Path,
    kind: str,
    *,
    as_text: Collection[str] = (),
    extra: Collection[str] = (),
    name: str = "tiny",
    chat_template: str = "",
    pre: str = "",
) -> Path:
    """A model with a vocabulary of VOCABULARIES. Control tokens `as_text` are none in it, but tokens that no text leads
    to, and `extra` are further tokens of text; `name` is the model's own, by which the library knows some families, and
    `pre` the way in which it cuts texts first.
    """
    metadata = VOCABULARIES[kind]({**dict.fromkeys(as_text, _NOTHING), **dict.fromkeys(extra, _NORMAL)})
    if pre:
        metadata["tokenizer.ggml.pre"] = pre
    if chat_template:
        metadata["tokenizer.chat_template"] = chat_template
    return write_zeros(folder / f"{kind}-{name}-{len(as_text)}.gguf", name, metadata)


def write_zeros(path: Path, name: str, vocabulary: Metadata) -> Path:
    """A model of one layer with this vocabulary, for which every token is as likely as any other."""
    words = vocabulary["tokenizer.ggml.tokens"]
    assert isinstance(words, list)
    own: Metadata = {
        "general.architecture": "llama",
        "general.name": name,
        "llama.context_length": 8192,
        "llama.embedding_length": _WIDTH,
        "llama.feed_forward_length": _WIDTH,
        "llama.block_count": 1,
        "llama.attention.head_count": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }
    return write_gguf(path, own | vocabulary, _tensors(len(words)))


def _tensors(size: int) -> dict[str, TensorData]:
    matrix = np.zeros((_WIDTH, _WIDTH), np.float32)
    layer = {f"blk.0.{part}.weight": matrix for part in ("attn_q", "attn_k", "attn_v", "attn_output")}
    layer |= {f"blk.0.{part}.weight": matrix for part in ("ffn_gate", "ffn_up", "ffn_down")}
    norms = {f"blk.0.{part}.weight": np.ones(_WIDTH, np.float32) for part in ("attn_norm", "ffn_norm")}
    return {
        "token_embd.weight": np.zeros((size, _WIDTH), np.float32),
        "output_norm.weight": np.ones(_WIDTH, np.float32),
        **layer,
        **norms,
    }


def _special(as_text: Mapping[str, int]) -> dict[str, int]:
    return {**dict.fromkeys(CONTROL, _CONTROL), **dict.fromkeys(USER_DEFINED, _USER_DEFINED), **as_text}


def _beginnings(space: str) -> list[str]:
    """Words are put together from their left, with a space before them and without."""
    return [f"{before}{word[:end]}" for word in _WORDS for before in (space, "") for end in range(1, len(word) + 1)]


def _vocabulary(model: str, tokens: Mapping[str, int], **own: MetadataValue) -> Metadata:
    """What is longer is better, and is then earlier in `tokens`, as with vocabularies of SentencePiece."""
    metadata: Metadata = {
        "tokenizer.ggml.model": model,
        "tokenizer.ggml.tokens": list(tokens),
        "tokenizer.ggml.scores": [-float(number) for number in range(len(tokens))],
        "tokenizer.ggml.token_type": list(tokens.values()),
        "tokenizer.ggml.bos_token_id": list(tokens).index("<s>"),
        "tokenizer.ggml.eos_token_id": list(tokens).index("</s>"),
    }
    return metadata | {f"tokenizer.ggml.{name}": value for name, value in own.items()}


def _sentence_pieces(as_text: Mapping[str, int], *, space_prefix: bool) -> Metadata:
    tokens = {"<unk>": _UNKNOWN, **_special(as_text), **{f"<0x{byte:02X}>": _BYTE for byte in range(256)}}
    merged = ["\n\n", "▁▁", "▁▁▁▁", ".\n", ">\n", "<|", "|>", "▁", *"<>|[]/.,:abcdehilmnorstuvwyIS_é\n"]
    tokens |= dict.fromkeys([*_beginnings("▁"), *merged], _NORMAL)
    return _vocabulary("llama", tokens, unknown_token_id=0, add_bos_token=True, add_space_prefix=space_prefix)


def _bytes_in_pairs(as_text: Mapping[str, int]) -> Metadata:
    """Byte-level BPE: each byte is written as a character that can be seen."""
    shown = shown_bytes()
    space, line = shown[ord(" ")], shown[ord("\n")]
    pairs = [(word[:-1], word[-1]) for word in _beginnings(space) if len(word) > 1]
    pairs += [(line, line), (".", line), (">", line), ("<", "|"), ("|", ">"), (space, space), (space * 2, space * 2)]
    pairs += [(shown[0xC3], shown[0xA9]), ("|>", line)]
    tokens = {"<unk>": _UNKNOWN, **_special(as_text), **dict.fromkeys(shown, _NORMAL)}
    tokens |= dict.fromkeys((left + right for left, right in pairs), _NORMAL)
    merges = list(dict.fromkeys(f"{left} {right}" for left, right in pairs))
    return _vocabulary("gpt2", tokens, pre="qwen2", merges=merges, add_bos_token=True)


def _unigrams(as_text: Mapping[str, int]) -> Metadata:
    tokens = {"<pad>": _CONTROL, "<unk>": _UNKNOWN, **_special(as_text)}
    tokens |= dict.fromkeys([*_beginnings("▁"), "▁", *"<>|[]/.,:abcdehilmnorstuvwyIS_é"], _NORMAL)
    metadata = _vocabulary("t5", tokens, unknown_token_id=1, padding_token_id=0, add_bos_token=True)
    return metadata | {"tokenizer.ggml.add_space_prefix": True, "tokenizer.ggml.remove_extra_whitespaces": True}


def _word_pieces(as_text: Mapping[str, int]) -> Metadata:
    letters = [*"abcdehilmnorstuvwy"]
    words = [*_beginnings("▁"), *letters, *(f"▁{letter}" for letter in letters), *(f"▁{sign}" for sign in "<>|[]/.,:")]
    tokens = {"[UNK]": _UNKNOWN, **_special(as_text), **dict.fromkeys(words, _NORMAL)}
    return _vocabulary("bert", tokens, unknown_token_id=0, seperator_token_id=2, cls_token_id=1)


def shown_bytes() -> list[str]:
    """By byte: printable characters stand for themselves, the others for characters from U+0100 on."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(0x100, 0x200))
    return [chr(byte) if byte in plain else chr(next(hidden)) for byte in range(256)]


VOCABULARIES: Mapping[str, Callable[[Mapping[str, int]], Metadata]] = {
    "spm": lambda as_text: _sentence_pieces(as_text, space_prefix=True),
    "spm-no-prefix": lambda as_text: _sentence_pieces(as_text, space_prefix=False),
    "bpe": _bytes_in_pairs,
    "ugm": _unigrams,
    "wpm": _word_pieces,
}
