"""Whose prompt is evaluated next, and how much of it at once. Pure.

Prompts take turns, piece by piece, so that a short one does not wait for the end of a long one. While others
decode, the pieces between two of their tokens take about as long as they may have to wait; while no run decodes,
pieces are as large as they can be.
"""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from worker_orcd.engines.llama_cpp.chunk_size import ChunkSize
from worker_orcd.engines.llama_cpp.determinism import FixedChunks
from worker_orcd.engines.llama_cpp.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Piece:
    """The tokens of a sequence from `begin` to `end`."""

    sequence: Sequence
    begin: int
    end: int

    @property
    def is_last(self) -> bool:
        return self.end == self.sequence.prefill_tokens


class PromptTurns:
    """`gap_s` is how long decoding runs may wait for their next token."""

    def __init__(self, chunk: ChunkSize, fixed: FixedChunks, gap_s: float) -> None:
        self._chunk = chunk
        self._fixed = fixed
        self._gap_s = gap_s
        self._spent_s = 0.0
        """Since the last decoding."""
        self._turns = 0

    def next_piece(self, waiting: SequenceOf[Sequence], *, others_decode: bool) -> Piece | None:
        """A piece of the prompt whose turn it is; None if the decoding runs come first."""
        if not waiting:
            return None
        sequence = min(waiting, key=lambda sequence: sequence.last_turn)
        begin, rest = sequence.evaluated, sequence.prefill_tokens - sequence.evaluated
        left_s = self._gap_s - self._spent_s if others_decode else None
        if left_s is not None and self._spent_s and not self._fits(begin, rest, left_s):
            return None
        if sequence.deterministic:
            return Piece(sequence, begin, self._fixed.end(begin, sequence.prefill_tokens))
        return Piece(sequence, begin, begin + min(rest, self._chunk.within(begin, left_s)))

    def evaluated(self, piece: Piece, seconds: float) -> None:
        self._turns += 1
        piece.sequence.last_turn = self._turns
        self._spent_s += seconds
        self._chunk.observe(piece.begin, piece.end - piece.begin, seconds)

    def decoded(self) -> None:
        self._spent_s = 0.0

    def _fits(self, begin: int, rest: int, left_s: float) -> bool:
        """Whether the whole rest of a prompt can still be evaluated before the others' turn."""
        return rest <= self._chunk.within(begin, left_s) and self._chunk.seconds(begin, rest) <= left_s
