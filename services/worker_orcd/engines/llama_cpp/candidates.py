"""The tokens that may be picked, with their logits, in the form that llama.cpp's stages work on."""

import ctypes
import math
from typing import Any

import numpy as np
import numpy.typing as npt

_ENTRY = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])

_PEAKS_OF = 64
"""Tokens of which the likeliest one is looked at first when only the likeliest are wanted."""

Row = npt.NDArray[np.float32]
"""The logits of one position, by token id."""


class _Array(ctypes.Structure):
    """llama.cpp's `llama_token_data_array`, with an address for its pointer: its numbers are read in no time."""

    _fields_ = (
        ("data", ctypes.c_size_t),
        ("size", ctypes.c_size_t),
        ("selected", ctypes.c_int64),
        ("sorted", ctypes.c_bool),
    )


class Candidates:
    """One array for all sequences of the engine's thread: filled, narrowed by stages, and read, once per draw."""

    def __init__(self, lib: Any, vocabulary_size: int) -> None:
        self._lib = lib
        self._ids = np.arange(vocabulary_size, dtype=np.int32)
        self._entries = np.zeros(vocabulary_size, _ENTRY)
        self._array = _Array()
        self._reference = ctypes.cast(ctypes.byref(self._array), ctypes.POINTER(lib.llama_token_data_array))
        self._data = self._entries.ctypes.data
        self._entry_ids, self._entry_logits, self._entry_p = (self._entries[name] for name in ("id", "logit", "p"))
        self._peaks = vocabulary_size // _PEAKS_OF
        self._rows: dict[int, Row] = {}
        """Views of the engine's memory by address; it does not move as long as its context lives."""

    @property
    def most_top(self) -> int:
        """How many tokens `fill_top` can be asked for."""
        return self._peaks // 2

    def row(self, context: int, output: int) -> Row:
        """The logits of row `output` of the last decoded batch: a view, and of another batch with the next."""
        address = ctypes.addressof(self._lib.llama_get_logits_ith(context, output).contents)
        row = self._rows.get(address)
        if row is None:
            memory = (ctypes.c_float * len(self._ids)).from_address(address)
            row = self._rows[address] = np.ctypeslib.as_array(memory)
        return row

    def fill(self, row: Row, only: npt.NDArray[np.int32] | None = None) -> None:
        """All tokens, or `only` these: tokens that are not there need no logits of minus infinity, which some
        stages compute nonsense from.
        """
        ids = self._ids if only is None else only
        count = len(ids)
        self._entry_ids[:count] = ids
        self._entry_logits[:count] = row if only is None else row[only]
        self._begin(count)

    def fill_top(self, row: Row, count: int) -> None:
        """The `count` likeliest tokens and few others: a tenth of the time, and of the memory, of all.

        The vocabulary is cut into sets, each with its peak. There are at least `count` tokens as likely as the
        `count`-th of the peaks, so that no other token is among the likeliest.
        """
        peaks = row[: self._peaks * _PEAKS_OF].reshape(_PEAKS_OF, self._peaks).max(axis=0)
        peaks.partition(self._peaks - count)
        ids = np.flatnonzero(row >= peaks[self._peaks - count])
        self._entry_ids[: len(ids)] = ids
        self._entry_logits[: len(ids)] = row[ids]
        self._begin(len(ids))

    def _begin(self, count: int) -> None:
        self._array.data = self._data
        self._array.size = count
        self._array.selected = -1
        self._array.sorted = False

    def apply(self, stage: Any) -> None:
        self._lib.llama_sampler_apply(stage, self._reference)

    @property
    def picked(self) -> tuple[int, float] | None:
        """The token that the last stage chose, and its probability; None if there was none to choose from."""
        array = self._array
        if not 0 <= array.selected < array.size:
            return None
        # Some stages leave the first entries out by moving the pointer.
        at = array.selected + (array.data - self._data) // _ENTRY.itemsize
        if self._entry_logits.item(at) == -math.inf:
            return None
        return self._entry_ids.item(at), self._entry_p.item(at)
