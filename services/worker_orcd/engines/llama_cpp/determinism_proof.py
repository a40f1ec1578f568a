"""Before a worker promises equal bytes, it sees that its build gives them on this device.

A fixed text is evaluated as that of a deterministic run, once alone, and once in another slot with other
sequences taking their turns in between. If a single bit of the logits differs, the promise is not made.
"""

from collections.abc import Sequence
from ctypes import string_at
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from worker_orcd.engines.llama_cpp.batch import Batch
from worker_orcd.engines.llama_cpp.context import Context
from worker_orcd.engines.llama_cpp.determinism import FixedChunks, calls

DECODED = 3
MOST_OTHERS = 3
_BEYOND_A_CHUNK = 3
"""The prompt takes a whole chunk and a piece of the next, so that a cut is proven as well."""

_STRIDE = 7919
"""A prime: the ids of the text are spread over the vocabulary."""

_FLOAT_BYTES = 4


@dataclass(slots=True)
class _Reader:
    """A sequence of the text, evaluated up to `position`."""

    slot: int
    deterministic: bool
    position: int = 0


class DeterminismProof:
    """Uses the slots of a context in which nothing runs yet, and leaves them empty."""

    def __init__(self, lib: Any, context: Context, slots: int, vocabulary_size: int, fixed: FixedChunks) -> None:
        self._lib = lib
        self._context = context
        self._slots = slots
        self._row_bytes = _FLOAT_BYTES * vocabulary_size
        self._fixed = fixed
        self._prompt = fixed.size + _BEYOND_A_CHUNK
        self._tokens = [at * _STRIDE % vocabulary_size for at in range(self._prompt + DECODED)]
        self._batch = Batch(lib, max(fixed.size, MOST_OTHERS + 1))

    def holds(self) -> bool:
        """Takes about as long as a prompt of two fixed chunks. Raises DecodeError as decoding does."""
        last = self._slots - 1
        beside = self.logits_digest(last, range(min(last, MOST_OTHERS)))
        return self.logits_digest(0) == beside

    def logits_digest(self, slot: int, others: Sequence[int] = (), *, deterministic: bool = True) -> bytes:
        """Of what the model says after the prompt and after each further token, while the slots of `others`
        decode the same text.
        """
        reader = _Reader(slot, deterministic)
        beside = [_Reader(other, deterministic=False) for other in others]
        digest = sha256()
        while reader.position < self._prompt:
            self._decode(beside)
            digest.update(self._read_chunk(reader))
        for _ in range(DECODED):
            for together in calls([*beside, reader]):
                self._decode(together)
                if reader in together:
                    digest.update(self._logits(together.index(reader)))
        for used in (slot, *others):
            self._context.forget(used)
        return digest.digest()

    def _read_chunk(self, reader: _Reader) -> bytes:
        """The next chunk of the prompt; the logits at the end of the last one, nothing before."""
        begin, end = reader.position, self._fixed.end(reader.position, self._prompt)
        is_last = end == self._prompt
        self._batch.fill_chunk(self._tokens[begin:end], begin, reader.slot, wants_output=is_last)
        self._context.decode(self._batch)
        reader.position = end
        return self._logits(end - begin - 1) if is_last else b""

    def _decode(self, readers: Sequence[_Reader]) -> None:
        if not readers:
            return
        self._batch.fill_step(
            [self._tokens[reader.position] for reader in readers],
            [reader.position for reader in readers],
            [reader.slot for reader in readers],
        )
        self._context.decode(self._batch)
        for reader in readers:
            reader.position += 1

    def _logits(self, row: int) -> bytes:
        return string_at(self._lib.llama_get_logits_ith(self._context.handle, row), self._row_bytes)
