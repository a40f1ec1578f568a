"""The tokens that may be picked, with their logits, in the form that llama.cpp's stages work on."""

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

_ENTRY = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])

Row = npt.NDArray[np.float32]
"""The logits of one position, by token id."""


class Candidates:
    """One array for all sequences of the engine's thread: filled, narrowed by stages, and read, once per draw."""

    def __init__(self, lib: Any, vocabulary_size: int) -> None:
        self._lib = lib
        self._ids = np.arange(vocabulary_size, dtype=np.int32)
        self._entries = np.zeros(vocabulary_size, _ENTRY)
        self._array = lib.llama_token_data_array()
        self._data = self._entries.ctypes.data_as(ctypes.POINTER(lib.llama_token_data))

    def fill(self, row: Row, only: npt.NDArray[np.int32] | None = None) -> None:
        """All tokens, or `only` these: tokens that are not there need no logits of minus infinity, which some
        stages compute nonsense from.
        """
        ids = self._ids if only is None else only
        count = len(ids)
        self._entries["id"][:count] = ids
        self._entries["logit"][:count] = row if only is None else row[only]
        self._array.data = self._data
        self._array.size = count
        self._array.selected = -1
        self._array.sorted = False

    def apply(self, stage: Any) -> None:
        self._lib.llama_sampler_apply(stage, ctypes.byref(self._array))

    @property
    def picked(self) -> tuple[int, float] | None:
        """The token that the last stage chose, and its probability; None if there was none to choose from."""
        at = self._array.selected
        if not 0 <= at < self._array.size:
            return None
        entry = self._array.data[at]
        return (entry.id, entry.p) if entry.logit > -np.inf else None
