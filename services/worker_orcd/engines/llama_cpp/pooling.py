"""One vector of a text from the rows of its tokens, which come piece by piece. Pure."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llorch.gguf.facts import ModelFacts, Pooling

Rows = NDArray[np.float32]


class Pool(Protocol):
    def add(self, rows: Rows) -> None:
        """The rows of the next tokens, at least one; they are only valid during the call."""
        ...

    def result(self) -> Rows:
        """Of all rows so far, as they are: its length is any."""
        ...


class _Mean:
    def __init__(self, width: int) -> None:
        self._sum = np.zeros(width, np.float64)
        self._count = 0

    def add(self, rows: Rows) -> None:
        self._sum += rows.sum(axis=0, dtype=np.float64)
        self._count += len(rows)

    def result(self) -> Rows:
        return (self._sum / self._count).astype(np.float32)


class _First:
    def __init__(self, width: int) -> None:
        self._row: Rows = np.zeros(width, np.float32)
        self._is_there = False

    def add(self, rows: Rows) -> None:
        if not self._is_there:
            self._row = rows[0].copy()
            self._is_there = True

    def result(self) -> Rows:
        return self._row


class _Last:
    def __init__(self, width: int) -> None:
        self._row: Rows = np.zeros(width, np.float32)

    def add(self, rows: Rows) -> None:
        self._row = rows[-1].copy()

    def result(self) -> Rows:
        return self._row


_POOLS: Mapping[Pooling, Callable[[int], Pool]] = {
    Pooling.MEAN: _Mean,
    Pooling.CLS: _First,
    Pooling.LAST: _Last,
}


def used_pooling(facts: ModelFacts) -> Pooling:
    """A model that was trained for none gets the mean."""
    return Pooling.MEAN if facts.pooling in (Pooling.NONE, None) else facts.pooling


def pool_of(pooling: Pooling) -> Callable[[int], Pool]:
    """Makes a pool for rows of a width. Not for scores."""
    return _POOLS[pooling]
