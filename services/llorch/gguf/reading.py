"""How whole texts are read, for vectors and for scores: the sizes of the context that a worker has for it. Pure.

The worker makes that context when it loads the model, so that its memory is part of the estimate and of what is
measured, and no request can fail for want of it.
"""

from dataclasses import dataclass

from llorch.gguf.facts import ModelFacts

MOST_TOKENS_BESIDE_ANSWERS = 2048
"""Of a text for a model that generates: the cache for it is there beside that of the answers."""

MOST_TOKENS_AS_A_WHOLE = 8192
"""Of a text that has to be evaluated at once, since each of its tokens sees all others."""

MOST_OUTPUT_BYTES = 2 * 2**30
"""llama.cpp sets memory of the host aside for a logit per token of a call and entry of the vocabulary, also where it
computes none.
"""

TOKENS_AT_ONCE = 128
"""Where a text can be cut. llama.cpp computes the logits of all tokens that it reads for a vector: more at once would
take much memory for nothing (at 152k tokens of vocabulary 0.6 MB each).
"""

MOST_TEXTS = 16
"""Evaluated together, if they are short."""

_WITHOUT_LOGITS = frozenset(
    {
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llama-embed",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
    }
)
"""Architectures that end with the vectors of the tokens. `layers` knows which of them keep nothing of a text."""

_CELLS_AT_ONCE = 256
_LOGIT_BYTES = 4


@dataclass(frozen=True, slots=True)
class ReadingShape:
    """`tokens` is the longest text, `tokens_at_once` what is computed in one go, `texts` how many are in it side by
    side.
    """

    tokens: int
    tokens_at_once: int
    texts: int

    def cells(self, window: int) -> int:
        """Tokens that a layer keeps, all texts together; `window` is how many it looks back, 0 for all."""
        if not window:
            return self.tokens
        return min(self.tokens, _padded(window * self.texts + self.tokens_at_once))


def reading_shape(facts: ModelFacts, context: int) -> ReadingShape:
    """`context` is what one request may use, in tokens. No text is longer than those that the model was trained with:
    it may know no further positions, and native code ends the process at the first one.
    """
    cells = min(_padded(context), facts.context_trained)
    if facts.bidirectional:
        affordable = MOST_OUTPUT_BYTES // (_LOGIT_BYTES * max(facts.vocabulary_size, 1))
        tokens = min(cells, MOST_TOKENS_AS_A_WHOLE, max(affordable // _CELLS_AT_ONCE, 1) * _CELLS_AT_ONCE)
        # llama.cpp lays out what it computes for a multiple of the texts, and aborts where another number comes.
        texts = min(MOST_TEXTS, tokens)
        tokens -= tokens % texts
        return ReadingShape(tokens, tokens, texts)
    # A state is kept for each text that may be there, however short it is.
    texts = 1 if any(layer.state_bytes for layer in facts.layers) else MOST_TEXTS
    tokens = min(cells, MOST_TOKENS_BESIDE_ANSWERS) if facts.generates else cells
    return ReadingShape(tokens, min(tokens, TOKENS_AT_ONCE), min(texts, tokens))


def computes_logits(facts: ModelFacts) -> bool:
    """Whether llama.cpp computes them beside what is asked for."""
    return not facts.bidirectional or facts.architecture not in _WITHOUT_LOGITS


def output_bytes(facts: ModelFacts, shape: ReadingShape) -> int:
    """What llama.cpp takes in the host's memory for the results of a call, of which logits are nearly all."""
    return _LOGIT_BYTES * facts.vocabulary_size * shape.tokens_at_once


def _padded(tokens: int) -> int:
    return -(-tokens // _CELLS_AT_ONCE) * _CELLS_AT_ONCE
