"""Log probabilities of a position, from the logits of the model, before any sampling option. Pure."""

from collections.abc import Sequence

import numpy as np

from worker_orcd.engines.llama_cpp.candidates import Row
from worker_orcd.log_entry import PositionLogprobs, TokenLogprob


def position_logprobs(row: Row, chosen: int, top: int, pieces: Sequence[str | bytes]) -> PositionLogprobs:
    """The chosen token's, and those of the `top` most likely ones; of equal ones the lower id comes first."""
    highest = row.max()
    total = float(highest) + float(np.log(np.exp(row - highest).sum(dtype=np.float64)))

    def logprob(token_id: int) -> TokenLogprob:
        piece = pieces[token_id]
        raw = piece.encode() if isinstance(piece, str) else piece
        return TokenLogprob(token_id, min(0.0, float(row[token_id]) - total), raw)

    return PositionLogprobs(logprob(chosen), tuple(logprob(token_id) for token_id in _most_likely(row, top)))


def _most_likely(row: Row, count: int) -> list[int]:
    if count == 0:
        return []
    least = np.partition(row, -count)[-count] if count < len(row) else row.min()
    best = np.flatnonzero(row >= least).tolist()
    return sorted(best, key=lambda token_id: (-row[token_id], token_id))[:count]
