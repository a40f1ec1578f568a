"""The proof before the promise: it fails where a build lets neighbours show in the logits."""

import ctypes
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from worker_orcd.engines.llama_cpp.batch import Batch
from worker_orcd.engines.llama_cpp.determinism import FixedChunks
from worker_orcd.engines.llama_cpp.determinism_proof import DeterminismProof

VOCABULARY = 50


class Model:
    """Its logits are sums over what a slot has read. `fault` says what else they depend on."""

    def __init__(self, fault: str = "") -> None:
        self.handle = 0
        self._fault = fault
        self._read: defaultdict[int, list[int]] = defaultdict(list)
        self._calls = 0
        self._logits = np.zeros((64, VOCABULARY), np.float32)

    def decode(self, batch: Batch) -> None:
        self._calls += 1
        count = batch.struct.n_tokens
        neighbours = len(set(batch._sequences[:count].tolist()))
        for row in range(count):
            slot, position = int(batch._sequences[row]), int(batch._positions[row])
            assert position == len(self._read[slot]), "no token is left out or read twice"
            self._read[slot].append(int(batch._tokens[row]))
            extra = {"neighbours": neighbours, "calls": self._calls, "slot": slot}.get(self._fault, 0)
            self._logits[row] = sum(self._read[slot]) + extra

    def forget(self, slot: int) -> None:
        self._read.pop(slot, None)

    def logits(self, _handle: int, row: int) -> Any:
        return self._logits[row].ctypes.data

    @property
    def is_empty(self) -> bool:
        return not self._read


def prove(model: Model, slots: int) -> bool:
    lib = SimpleNamespace(
        llama_token=ctypes.c_int32,
        llama_pos=ctypes.c_int32,
        llama_seq_id=ctypes.c_int32,
        llama_batch=lambda n_tokens, *_arrays: SimpleNamespace(n_tokens=n_tokens),
        llama_get_logits_ith=model.logits,
    )
    context: Any = model
    return DeterminismProof(lib, context, slots, VOCABULARY, FixedChunks(8)).holds()


@pytest.mark.parametrize("slots", [1, 2, 16])
def test_it_holds_where_slots_do_not_show(slots: int) -> None:
    model = Model()
    assert prove(model, slots)
    assert model.is_empty


@pytest.mark.parametrize("slots", [1, 2, 16])
def test_neighbours_that_show_in_shared_calls_are_no_matter(slots: int) -> None:
    assert prove(Model("neighbours"), slots)


@pytest.mark.parametrize("fault", ["calls", "slot"])
def test_it_fails_where_anything_else_shows(fault: str) -> None:
    assert not prove(Model(fault), 4)
