"""What a model is, from its header: the numbers that memory and contexts follow from. Pure.

A model may be split into several files; its facts are those of all of them together. Numbers that native code relies
on without looking are checked here.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from llorch.gguf.cursor import Malformed
from llorch.gguf.header import Header, PassedOver, Tensor, Value
from llorch.gguf.layers import Layer, is_bidirectional, read_layers, window_of
from llorch.gguf.metadata import Metadata

MAX_FILES = 256
MAX_ARCHITECTURE_CHARACTERS = 64


_CLASSIFIERS = frozenset({"cls.weight", "cls.output.weight"})


class Pooling(StrEnum):
    """What a model was trained to make of a whole text, in the order of the numbers that GGUF files have for it."""

    NONE = "none"
    MEAN = "mean"
    CLS = "cls"
    LAST = "last"
    RANK = "rank"
    """A score: how well a document answers a query."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the memory of a model follows from. Sizes in bytes, contexts in tokens.

    `embedding_bytes` are the token embeddings; `output_bytes` is the matrix that makes logits, which may be the same
    tensor (`tied_output`). `weight_bytes` counts every tensor once. `activation_width` is how many numbers llama.cpp
    keeps per token of a batch where the model is at its widest. `bidirectional`: what a token means depends on those
    after it, too. `pooling` is None where an earlier release has read the file. The fields stand in the orchestrator's
    records.
    """

    architecture: str
    context_trained: int
    layers: tuple[Layer, ...]
    window: int
    vocabulary_size: int
    activation_width: int
    weight_bytes: int
    embedding_bytes: int
    output_bytes: int
    tied_output: bool
    pooling: Pooling | None = None
    bidirectional: bool = False

    @property
    def generates(self) -> bool:
        """Text, by itself: it is not trained for vectors or scores, and keeps something of the tokens before."""
        keeps = any(layer.key_width or layer.state_bytes for layer in self.layers)
        return keeps and not self.bidirectional and self.pooling in (Pooling.NONE, None)

    @property
    def ranks(self) -> bool:
        """It scores documents; it has no vectors of texts then."""
        return self.pooling is Pooling.RANK


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts(ModelFacts):
    """And what else the files say. Sizes in bytes. `quantization` is how many bytes are stored in which type."""

    name: str
    quantization: Mapping[str, int]
    file_bytes: int
    files: int


def read_facts(headers: Sequence[Header]) -> FileFacts:
    """`headers` are of all files of the model, the first one first. Raises Malformed."""
    metadata = Metadata(headers[0].metadata)
    if not 0 < len(metadata.architecture) <= MAX_ARCHITECTURE_CHARACTERS:
        raise Malformed("does not name its architecture (general.architecture)")
    tensors = {tensor.name: tensor for header in headers for tensor in header.tensors}
    embedding = _size_of(tensors, "token_embd.weight")
    output = _size_of(tensors, "output.weight")
    sizes: Counter[str] = Counter()
    for tensor in tensors.values():
        sizes[tensor.type.name] += tensor.size_bytes
    layers = read_layers(metadata, tensors)
    bidirectional = is_bidirectional(metadata)
    return FileFacts(
        architecture=metadata.architecture,
        name=metadata.text("general.name"),
        context_trained=metadata.whole("context_length", 1, 1 << 31),
        vocabulary_size=_vocabulary_size(metadata, tensors),
        layers=layers,
        window=window_of(metadata),
        activation_width=(
            _width_of_encoder(metadata, tensors) if bidirectional else _activation_width(metadata, layers)
        ),
        quantization=dict(sizes.most_common()),
        weight_bytes=sum(sizes.values()),
        embedding_bytes=embedding,
        output_bytes=output or embedding,
        tied_output=output == 0,
        pooling=_pooling(metadata, tensors),
        bidirectional=bidirectional,
        file_bytes=sum(header.file_bytes for header in headers),
        files=len(headers),
    )


def split_of(header: Header) -> tuple[int, int]:
    """Which file of how many this is; (0, 1) for a model in one file."""
    metadata = Metadata(header.metadata)
    count = metadata.whole_of("split.count", 0, MAX_FILES, default=0)
    return (metadata.whole_of("split.no", 0, count - 1, default=0), count) if count > 1 else (0, 1)


def _pooling(metadata: Metadata, tensors: Mapping[str, Tensor]) -> Pooling:
    kinds = tuple(Pooling)
    pooling = kinds[metadata.whole("pooling_type", 0, len(kinds) - 1, default=0)]
    if pooling is Pooling.RANK and not _CLASSIFIERS & set(tensors):
        raise Malformed("says that it scores documents, and has no classifier (cls.output.weight)")
    return pooling


def _activation_width(metadata: Metadata, layers: Sequence[Layer]) -> int:
    """Fitted to what the pinned llama.cpp reserves for models of 0.1 to 70 billion weights: exact for most dense
    ones, a few percent off for the others.
    """
    embedding = metadata.whole("embedding_length", 1, 1 << 24)
    heads = metadata.whole("attention.key_length", 0, 1 << 16, default=embedding // max(layers[0].heads, 1))
    feed_forward = max(metadata.per_layer("feed_forward_length", len(layers)))
    experts = max(metadata.per_layer("expert_used_count", len(layers), most=1024))
    of_expert = max(
        metadata.per_layer("expert_feed_forward_length", len(layers), default=feed_forward if experts else 0)
    )
    inner = metadata.whole("ssm.inner_size", 0, 1 << 24, default=0)
    widest = max(
        3 * feed_forward,
        6 * max(heads * layer.heads + layer.value_width for layer in layers),
        experts * (3 * of_expert + embedding) + embedding,
        5 * inner,
    )
    return widest + 4 * embedding


def _width_of_encoder(metadata: Metadata, tensors: Mapping[str, Tensor]) -> int:
    """Fitted likewise, for 384 to 1024 numbers per token: exact within 2 %. Some have the gate in one tensor with what
    it lets through.
    """
    embedding = metadata.whole("embedding_length", 1, 1 << 24)
    feed_forward = max(metadata.per_layer("feed_forward_length", metadata.layer_count))
    up = tensors.get("blk.0.ffn_up.weight")
    is_gated = "blk.0.ffn_gate.weight" in tensors or (up is not None and up.dimensions[-1] == 2 * feed_forward)
    return 3 * embedding + (3 if is_gated else 1) * feed_forward


def _vocabulary_size(metadata: Metadata, tensors: Mapping[str, Tensor]) -> int:
    """The list of tokens; or what the file says; or the rows of the embeddings."""
    tokens: Value | None = metadata.values.get("tokenizer.ggml.tokens")
    if isinstance(tokens, PassedOver):
        return tokens.length
    said = metadata.whole("vocab_size", 0, 1 << 31, default=0)
    embedding = tensors.get("token_embd.weight")
    return said or (embedding.dimensions[-1] if embedding is not None and embedding.dimensions else 0)


def _size_of(tensors: Mapping[str, Tensor], name: str) -> int:
    tensor = tensors.get(name)
    return tensor.size_bytes if tensor is not None else 0
