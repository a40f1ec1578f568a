"""With weights in the memory of AMX, the model says what it says without, but for rounding."""

from typing import Any

import numpy as np
import pytest

from llorch.device_kind import DeviceKind
from support.real_model import smollm2
from worker_orcd.device import DeviceSet
from worker_orcd.engines.llama_cpp import model as model_module
from worker_orcd.engines.llama_cpp.amx import has_amx, may_repack
from worker_orcd.engines.llama_cpp.batch import Batch
from worker_orcd.engines.llama_cpp.context import Context
from worker_orcd.engines.llama_cpp.model import Model
from worker_orcd.engines.llama_cpp.native import load_native
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape

pytestmark = pytest.mark.native

TEXT = (
    "The lighthouse stood on the island for more than a thousand years and guided ships into the harbour at night "
    "with a fire that burned at its top. Many travellers wrote about it. An earthquake damaged it badly, and its stones"
)
CLOSE = 0.05
"""Nats of divergence, averaged; between batches of different sizes there are 0.003 without AMX."""


def log_probabilities(at_once: int) -> Any:
    """Of the next token, after the text was evaluated in pieces of this size."""
    native = load_native()
    shape = LlamaCppShape(smollm2(), "m", DeviceSet(DeviceKind.CPU, ("cpu",)), 1, 512, threads=1)
    model = Model(native, shape, lambda: True)
    context = Context(native, model, shape)
    batch = Batch(native.lib, 512)
    tokens = model.tokenize(TEXT, parse_special=False)
    for begin in range(0, len(tokens), at_once):
        piece = tokens[begin : begin + at_once]
        batch.fill_chunk(piece, begin, 0, wants_output=True)
        context.decode(batch)
    row = native.lib.llama_get_logits_ith(context.handle, len(piece) - 1)
    logits = np.ctypeslib.as_array(row, (model.vocabulary_size,)).astype(np.float64)
    context.close()
    model.close()
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


@pytest.mark.parametrize("at_once", [1, 16, 512])
def test_weights_that_were_repacked_say_the_same(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    native = load_native()
    if not (has_amx(native) and may_repack(native)):
        pytest.skip("this processor, or this build of llama.cpp, has no AMX")
    ours = log_probabilities(at_once)
    monkeypatch.setattr(model_module, "may_repack", lambda _native: False)
    plain = log_probabilities(at_once)
    assert not np.array_equal(ours, plain), "other code computed them"
    assert (np.exp(plain) * (plain - ours)).sum() < CLOSE
