"""Sequences that had to leave their slots, kept in the memory of the host. Pure.

Bringing one back is copying; evaluating it again is computing, which takes ten times as long and more.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from worker_orcd.engines.llama_cpp.slots import common_prefix

State = NDArray[np.uint8]
_BYTES_PER_TOKEN_ID = 40
"""Of Python's lists and numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class SavedSequence:
    """`state` is what the engine wrote for exactly these tokens. `first_position` is as in MemoryKind,
    `watermark` as in FixedChunks. `session` is whose they are; empty for no session's. `checksum` is the host cache's.
    """

    tokens: list[int]
    state: State
    first_position: int
    watermark: int
    session: str = ""
    checksum: int = 0

    @property
    def size(self) -> int:
        return self.state.nbytes + _BYTES_PER_TOKEN_ID * len(self.tokens)


class HostCache:
    """At most `budget_bytes`; those that were not wanted for the longest time go first.

    `identity` names model, cache types and engine: it goes into every checksum, so that no state is ever given
    to an engine of another kind.
    """

    def __init__(self, budget_bytes: int, identity: str) -> None:
        self._budget = budget_bytes
        self._seed = crc32(identity.encode())
        self._saved: list[SavedSequence] = []
        """The sequence that was used last is the last."""
        self.used_bytes = 0

    def __len__(self) -> int:
        return len(self._saved)

    def wants(self, tokens: list[int], state_bytes: int) -> bool:
        """Whether it would be kept, and is not there already."""
        if state_bytes + _BYTES_PER_TOKEN_ID * len(tokens) > self._budget:
            return False
        return not any(common_prefix(saved.tokens, tokens, len(tokens)) == len(tokens) for saved in self._saved)

    def add(self, sequence: SavedSequence) -> None:
        """Takes the place of what it continues, and of the oldest if there is no room."""
        for saved in list(self._saved):
            if common_prefix(saved.tokens, sequence.tokens, len(saved.tokens)) == len(saved.tokens):
                self.drop(saved)
        added = replace(sequence, checksum=self._checksum(sequence.state))
        while self._saved and self.used_bytes + added.size > self._budget:
            self.drop(self._saved[0])
        if added.size <= self._budget:
            self._saved.append(added)
            self.used_bytes += added.size

    def find(self, reusable: Callable[[SavedSequence], int]) -> tuple[SavedSequence, int] | None:
        """The sequence of which most can be reused, and how much; None if nothing can."""
        best, most = None, 0
        for saved in self._saved:
            reused = reusable(saved)
            if reused > most:
                best, most = saved, reused
        return (best, most) if best is not None else None

    def of_session(self, session: str) -> list[SavedSequence]:
        return [saved for saved in self._saved if saved.session == session]

    def is_intact(self, saved: SavedSequence) -> bool:
        return self._checksum(saved.state) == saved.checksum

    def want(self, saved: SavedSequence) -> None:
        """It was used: it goes last."""
        if saved in self._saved:
            self._saved.remove(saved)
            self._saved.append(saved)

    def drop(self, saved: SavedSequence) -> None:
        if saved in self._saved:
            self._saved.remove(saved)
            self.used_bytes -= saved.size

    def _checksum(self, state: State) -> int:
        return crc32(state.data, self._seed)
