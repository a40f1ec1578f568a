"""The tokens of one call of `llama_decode`, in arrays of our own that are filled in bulk."""

import ctypes
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np


class Batch:
    """Each row is one token of one sequence. The native struct only points into these arrays."""

    def __init__(self, lib: Any, capacity: int) -> None:
        self._capacity = capacity
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._sequence_counts = np.ones(capacity, np.int32)
        self._sequences = np.zeros(capacity, np.int32)
        self._wanted = np.zeros(capacity, np.int8)
        # For a few rows these are faster than numpy is.
        self._token_view, self._position_view = self._tokens.data, self._positions.data
        self._sequence_view, self._wanted_view = self._sequences.data, self._wanted.data
        stride = self._sequences.itemsize
        self._sequence_pointers = self._sequences.ctypes.data + stride * np.arange(capacity, dtype=np.uintp)
        self.struct = lib.llama_batch(
            0,
            self._tokens.ctypes.data_as(ctypes.POINTER(lib.llama_token)),
            None,
            self._positions.ctypes.data_as(ctypes.POINTER(lib.llama_pos)),
            self._sequence_counts.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            self._sequence_pointers.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(lib.llama_seq_id))),
            self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def fill_chunk(self, tokens: Sequence[int], position: int, sequence: int, *, wants_output: bool) -> None:
        """Consecutive tokens of one sequence; with `wants_output` the last one's logits are computed."""
        count = self._sized(len(tokens))
        self._tokens[:count] = tokens
        self._positions[:count] = np.arange(position, position + count)
        self._sequences[:count] = sequence
        self._wanted[:count] = 0
        self._wanted[count - 1] = wants_output

    def fill_step(self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int]) -> None:
        """One token each of several sequences, in ascending order; every one's logits are computed."""
        count = self._sized(len(tokens))
        self._token_view[:count] = array("i", tokens)
        self._position_view[:count] = array("i", positions)
        self._sequence_view[:count] = array("i", sequences)
        self._wanted_view[:count] = array("b", (1,)) * count

    def _sized(self, count: int) -> int:
        if not 0 < count <= self._capacity:
            raise ValueError(f"a batch has from 1 to {self._capacity} tokens, not {count}")
        self.struct.n_tokens = count
        return count
