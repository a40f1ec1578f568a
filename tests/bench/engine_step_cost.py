"""What a decode step costs beside the model: in Python, and in the samplers.

The loop runs on this thread with every function of the library wrapped by a clock. What the wrapping costs depends
on what is in the processor's caches, so it is measured in place: in every second step everything is wrapped twice.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from engine_client import engine_shape, prompt

from worker_orcd.engine_info import Fingerprint
from worker_orcd.engines.llama_cpp.context import Context
from worker_orcd.engines.llama_cpp.decode_loop import DecodeLoop
from worker_orcd.engines.llama_cpp.model import Model
from worker_orcd.engines.llama_cpp.native import load_native
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.engines.run_output import RunOutput
from worker_orcd.run_spec import RunSpec

WARM_UP = 10
STEPS = 100
_clock = time.perf_counter_ns


class ClockedLibrary:
    """The library with its functions' time by name, in ns."""

    def __init__(self, lib: Any) -> None:
        self._lib = lib
        self.spent: dict[str, int] = {}
        self.wraps_twice = False
        self._within = False
        self._unused: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._lib, name)
        wrapped = self._clocked(name, found) if callable(found) and name.startswith("llama_") else found
        if not isinstance(found, type):
            self.__dict__[name] = wrapped
        return found if isinstance(found, type) else wrapped

    def _clocked(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            again = self.wraps_twice and not self._within
            self._within = again
            began_at = _clock()
            result = (call if again else function)(*arguments)
            into = self._unused if again else self.spent
            into[name] = into.get(name, 0) + _clock() - began_at
            return result

        return call


def _share_outside() -> float:
    """The part of a wrapping that its own clock does not see."""
    library = ClockedLibrary(None)
    nothing = library._clocked("nothing", lambda: None)
    count = 20_000
    began_at = _clock()
    for _ in range(count):
        nothing()
    whole = _clock() - began_at
    return (whole - library.spent["nothing"]) / whole


class _ServerSampler:
    """llama.cpp's usual chain with its own draw at the end, one call per token, as the server core has it."""

    is_constrained = output_is_complete = False

    def __init__(self, lib: Any, vocabulary_size: int, sample: Callable[..., int]) -> None:
        self._lib = lib
        self._sample = sample
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for stage in (
            lib.llama_sampler_init_penalties(vocabulary_size, 64, 1.0, 0.0, 0.0),
            lib.llama_sampler_init_top_k(40),
            lib.llama_sampler_init_typical(1.0, 1),
            lib.llama_sampler_init_top_p(0.95, 1),
            lib.llama_sampler_init_min_p(0.05, 1),
            lib.llama_sampler_init_temp(0.8),
            lib.llama_sampler_init_dist(1),
        ):
            lib.llama_sampler_chain_add(self._chain, stage)

    def prepare(self, index: int) -> None:
        """Nothing."""

    def pick(self, context: int, output: int, index: int) -> int:
        return self._sample(self._chain, context, output)

    def particulars(self, context: int, output: int, token_id: int) -> None:
        return None

    def close(self) -> None:
        self._lib.llama_sampler_free(self._chain)


def measure_step_cost(sequences: int) -> dict[str, float]:
    """µs per token: Python's own, of our samplers, and of the server core's chain in the same steps.

    Warm is without the model in between, which fills this processor's caches with its weights.
    """
    native = load_native()
    shape = replace(engine_shape(slots=sequences, context=1024), threads=1)
    model = Model(native, shape, lambda: True)
    context = Context(native, model, shape)
    plain, clocked = native.lib, ClockedLibrary(native.lib)
    try:
        native.lib = context._lib = clocked
        loop = DecodeLoop(native, model, context, shape)
        _fill(loop, model, sequences)
        candidates = loop._workbench.candidates
        candidates.row = clocked._clocked("sampler_row", candidates.row)  # type: ignore[method-assign]  # the clock
        candidates.fill_top = clocked._clocked("sampler_fill", candidates.fill_top)  # type: ignore[method-assign]  # likewise
        python = _measure(loop, clocked)["python"] / sequences
        sample = clocked._clocked("server", plain.llama_sampler_sample)
        theirs = list(loop._active.values())[::2]
        for sequence in theirs:
            sequence.sampler.close()
            sequence.sampler = cast("Any", _ServerSampler(plain, model.vocabulary_size, sample))
        spent = _measure(loop, clocked)
        warm = _measure_warm(loop, context, clocked)["python"] / sequences
        loop.close()
    finally:
        native.lib = plain
    context.close()
    model.close()
    others = sequences - len(theirs)
    return {
        "python_us": python,
        "warm_python_us": warm,
        "sampling_us": spent["sampling"] / others,
        "server_sampling_us": spent["server"] / len(theirs),
    }


def _fill(loop: DecodeLoop, model: Model, sequences: int) -> None:
    for number in range(sequences):
        spec = RunSpec(prompt=prompt(12), ignore_eos=True, seed=number)
        tokens = model.tokenize(spec.prompt, parse_special=False)
        run = EngineRun(f"a{number}", spec)
        loop.add(run, RunOutput(run, len(tokens), 1024, time.monotonic, Fingerprint()), [tokens], [None])
    while len(loop._active) < sequences or not all(sequence.decoding for sequence in loop._active.values()):
        loop.step()


def _measure_warm(loop: DecodeLoop, context: Context, clocked: ClockedLibrary) -> dict[str, float]:
    """As beside a GPU: what is picked from are the last logits again. Nothing can be decoded after it."""
    context.decode = lambda _batch: None  # type: ignore[method-assign,assignment]  # the model is left out
    return _measure(loop, clocked)


def _measure(loop: DecodeLoop, clocked: ClockedLibrary) -> dict[str, float]:
    """µs per step, medians: Python's own, of our sampling, and of the server core's."""
    once: dict[str, list[float]] = {"python": [], "sampling": [], "server": []}
    twice: list[float] = []
    for step in range(WARM_UP + 2 * STEPS):
        clocked.wraps_twice = bool(step % 2)
        before, began_at = dict(clocked.spent), _clock()
        loop.step()
        whole = _clock() - began_at
        spent = {name: after - before.get(name, 0) for name, after in clocked.spent.items()}
        # The row is looked up with a call of the library, which is within its time already.
        python = (whole - sum(spent.values()) + spent.get("llama_get_logits_ith", 0)) / 1000
        if step < WARM_UP:
            continue
        if clocked.wraps_twice:
            twice.append(python)
        else:
            once["python"].append(python)
            once["sampling"].append(sum(ns for name, ns in spent.items() if "sampler" in name) / 1000)
            once["server"].append(spent.get("server", 0) / 1000)
    found = {name: statistics.median(times) for name, times in once.items()}
    wrapping = statistics.median(twice) - found["python"]
    found["python"] -= wrapping * _share_outside()
    return found
