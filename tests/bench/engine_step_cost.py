"""What a decode step costs beside the model: in Python, and in the samplers.

The loop runs on this thread with every function of the library wrapped by a clock of the thread's own processor
time, so that a busy machine does not count. What the wrapping costs is measured and left out.
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
_clock = time.thread_time_ns


class ClockedLibrary:
    """The library with its functions' time by name, in ns."""

    def __init__(self, lib: Any) -> None:
        self._lib = lib
        self.spent: dict[str, int] = {}
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._lib, name)
        wrapped = self._clocked(name, found) if callable(found) and name.startswith("llama_") else found
        if not isinstance(found, type):
            self.__dict__[name] = wrapped
        return found if isinstance(found, type) else wrapped

    def _clocked(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            began_at = _clock()
            result = function(*arguments)
            self.spent[name] = self.spent.get(name, 0) + _clock() - began_at
            self.calls += 1
            return result

        return call


def _cost_of_wrapping() -> float:
    """Processor time of one wrapped call that the clock does not see, in ns."""
    library = ClockedLibrary(None)
    nothing = library._clocked("nothing", lambda: None)
    count = 20_000
    began_at = _clock()
    for _ in range(count):
        nothing()
    return (_clock() - began_at - library.spent["nothing"]) / count


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
    """µs per token: Python's own, of our samplers, and of the server core's chain in the same steps."""
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
        loop.close()
    finally:
        native.lib = plain
    context.close()
    model.close()
    others = sequences - len(theirs)
    return {
        "python_us": python,
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


def _measure(loop: DecodeLoop, clocked: ClockedLibrary) -> dict[str, float]:
    """µs per step, medians: Python's own, of our sampling, and of the server core's."""
    wrapping = _cost_of_wrapping()
    found: dict[str, list[float]] = {"python": [], "sampling": [], "server": []}
    for step in range(WARM_UP + STEPS):
        before, calls, began_at = dict(clocked.spent), clocked.calls, _clock()
        loop.step()
        whole, made = _clock() - began_at, clocked.calls - calls
        spent = {name: after - before.get(name, 0) for name, after in clocked.spent.items()}
        # The row is looked up with a call of the library, which is within its time already.
        inside = spent.get("llama_get_logits_ith", 0)
        if step >= WARM_UP:
            found["python"].append((whole - sum(spent.values()) + inside - made * wrapping) / 1000)
            found["sampling"].append(sum(ns for name, ns in spent.items() if "sampler" in name) / 1000)
            found["server"].append(spent.get("server", 0) / 1000)
    return {name: statistics.median(times) for name, times in found.items()}
