"""Deterministic runs of the llama.cpp engine: the logits are bitwise the same, whatever happens beside them.

Equal tokens alone would prove little: a small difference in the logits seldom shows in what is picked.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ctypes import string_at
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from llorch.device_kind import DeviceKind
from llorch.options.sampling import Sampling
from support.tiny_models import GENERATING, write_tiny_model
from worker_orcd.device import DeviceSet
from worker_orcd.engines.llama_cpp import decode_loop
from worker_orcd.engines.llama_cpp.decode_loop import DecodeLoop
from worker_orcd.engines.llama_cpp.determinism import FixedChunks
from worker_orcd.engines.llama_cpp.engine import LlamaCppEngine
from worker_orcd.engines.llama_cpp.sequence import Sequence as RunningSequence
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.log_entry import LogEntry, Receipt, RunEnd
from worker_orcd.run_spec import RunSpec
from worker_orcd.token_step import TokenStep

pytestmark = [pytest.mark.native, pytest.mark.req("WORK-3003"), pytest.mark.timeout(600)]

SLOTS = 16
CONTEXT = 1024
CHUNK = 32
WAIT_S = 120.0

STORY = " ".join(["they go down the long way to the water and see how many people were there first"] * 4)
"""About 300 tokens, one per letter: parts in which it is evaluated show in the logits only when they are long."""

WILD = Sampling(temperature=3.0, top_k=0, top_p=1.0, min_p=0.0)
SPEC = RunSpec(prompt=STORY, seed=5, max_tokens=6, sampling=WILD, ignore_eos=True, deterministic=True)


@dataclass
class Seen:
    log: list[LogEntry] = field(default_factory=list)
    end: asyncio.Future[RunEnd] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    witness: dict[int, list[str]] = field(default_factory=dict)
    """Per choice, and token that was picked, a digest of the logits that it was picked from."""

    def token_ids(self, choice: int = 0) -> list[int]:
        return [token_id for entry in self.log if entry.choice == choice for token_id in entry.token_ids]

    def said(self, choice: int = 0) -> list[tuple[int, str]]:
        """The tokens, each with the digest of its logits."""
        return list(zip(self.token_ids(choice), self.witness[choice], strict=True))


class Bench:
    """An engine whose logits are looked at."""

    def __init__(self, engine: LlamaCppEngine, seen: dict[str, Seen]) -> None:
        self.engine = engine
        self.seen = seen
        engine.deliver_to(self._on_steps)

    async def submit(self, attempt_id: str, spec: RunSpec, prefix: Sequence[LogEntry] = ()) -> Seen:
        self.seen[attempt_id] = Seen()
        await self.engine.submit(EngineRun(attempt_id, spec, tuple(prefix)))
        return self.seen[attempt_id]

    async def run(self, attempt_id: str, spec: RunSpec, prefix: Sequence[LogEntry] = ()) -> Seen:
        seen = await self.submit(attempt_id, spec, prefix)
        async with asyncio.timeout(WAIT_S):
            await asyncio.shield(seen.end)
        return seen

    async def crowd(self, count: int) -> list[Seen]:
        """Others, each at a different place of a different text, for longer than any run here takes."""
        others = [
            RunSpec(prompt="who could say " * (1 + number), seed=number, ignore_eos=True) for number in range(count)
        ]
        return [await self.submit(f"other-{number}", spec) for number, spec in enumerate(others)]

    def _on_steps(self, steps: Sequence[TokenStep]) -> None:
        for step in steps:
            seen = self.seen[step.attempt_id]
            seen.log += step.entries
            if step.end is not None:
                seen.end.set_result(step.end)


OpenBench = Callable[..., AbstractAsyncContextManager["Bench"]]


@pytest.fixture(scope="module", params=GENERATING)
def model_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models, whose weights take other paths through the engine than quantized ones."""
    return write_tiny_model(tmp_path_factory.mktemp("models"), request.param)


@pytest.fixture
def open_bench(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenBench:
    """`async with open_bench() as bench`: an engine of its own each time."""
    pytest.importorskip("llama_cpp")

    @asynccontextmanager
    async def opened(**changes: Any) -> AsyncIterator[Bench]:
        shape = LlamaCppShape(
            model_path,
            model_path.stem.removeprefix("tiny-"),
            DeviceSet(DeviceKind.CPU, ("cpu",)),
            SLOTS,
            CONTEXT,
            threads=1,
        )
        seen: dict[str, Seen] = {}
        pick = DecodeLoop._pick

        def look_and_pick(loop: DecodeLoop, picking: Iterable[tuple[RunningSequence, int]]) -> None:
            found = list(picking)
            for sequence, row in found:
                logits = loop._lib.llama_get_logits_ith(loop._context.handle, row)
                digest = sha256(string_at(logits, 4 * loop._model.vocabulary_size)).hexdigest()
                seen[sequence.attempt_id].witness.setdefault(sequence.number, []).append(digest)
            pick(loop, found)

        with monkeypatch.context() as patched:
            patched.setattr(DecodeLoop, "_pick", look_and_pick)
            engine = LlamaCppEngine(replace(shape, **changes))
            await engine.load()
            try:
                yield Bench(engine, seen)
            finally:
                await engine.close()

    return opened


async def test_a_run_beside_15_others_has_the_logits_of_a_run_alone(open_bench: OpenBench) -> None:
    async with open_bench() as bench:
        alone = await bench.run("alone", SPEC)
    async with open_bench() as bench:
        others = await bench.crowd(SLOTS - 1)
        beside = await bench.run("beside", SPEC)
        assert not any(other.end.done() for other in others)
    assert beside.said() == alone.said()
    assert receipt_of(beside) == receipt_of(alone)


@pytest.mark.parametrize("model_path", ["llama"], indirect=True)
@pytest.mark.parametrize("safeguard", ["own calls", "fixed chunks"])
async def test_without_its_safeguards_it_would_not(
    open_bench: OpenBench, monkeypatch: pytest.MonkeyPatch, safeguard: str
) -> None:
    """What this file checks can fail. How prompts are cut shows in the bits of flash attention, if of nothing else."""
    monkeypatch.setattr(LlamaCppShape, "flash_attention", True)
    async with open_bench() as bench:
        alone = await bench.run("alone", SPEC)
    async with open_bench() as bench:
        if safeguard == "own calls":
            monkeypatch.setattr(decode_loop, "calls", lambda sequences: [sequences])
        else:
            monkeypatch.setattr(FixedChunks, "end", lambda fixed, begin, prompt: min(begin + 100, prompt))
        await bench.crowd(SLOTS - 1)
        beside = await bench.run("beside", SPEC)
    assert beside.witness != alone.witness


@pytest.mark.req("WORK-3008")
async def test_cut_at_any_place_and_resumed_it_goes_on_as_it_was(open_bench: OpenBench) -> None:
    async with open_bench() as bench:
        whole = await bench.run("whole", SPEC)
    async with open_bench() as bench:
        await bench.crowd(3)
        for cut in range(1, len(whole.log)):
            resumed = await bench.run(f"resumed-{cut}", SPEC, whole.log[:cut])
            emitted = sum(len(entry.token_ids) for entry in whole.log[:cut])
            assert resumed.said() == whole.said()[emitted:], f"resumed after {emitted} tokens"
            assert receipt_of(resumed) == receipt_of(whole)


async def test_what_a_slot_keeps_of_a_deterministic_prompt_changes_nothing(open_bench: OpenBench) -> None:
    longer = replace(SPEC, prompt=STORY + " now all of them made their way up again and were not seen by one of us")
    async with open_bench() as bench:
        fresh = await bench.run("fresh", longer)
    async with open_bench(slots=2) as bench:
        first = await bench.run("first", SPEC)
        second = await bench.run("second", longer)
        again = await bench.run("again", SPEC)
        cached = [(await seen.end).cached_tokens for seen in (first, second, again)]
    assert second.said() == fresh.said()
    assert again.said() == first.said()
    assert cached[0] == 0
    for reused in cached[1:]:
        assert (reused > CHUNK) == keeps_bits(bench)
        assert reused % CHUNK == 0


async def test_what_is_copied_from_a_running_neighbour_changes_nothing(open_bench: OpenBench) -> None:
    other_seed = replace(SPEC, seed=6)
    async with open_bench() as bench:
        alone = await bench.run("alone", other_seed)
    async with open_bench(slots=3) as bench:
        neighbour = await bench.submit("neighbour", replace(SPEC, max_tokens=300))
        while not neighbour.log:
            await asyncio.sleep(0)
        beside = await bench.run("beside", other_seed)
        assert not neighbour.end.done()
        assert ((await beside.end).cached_tokens > CHUNK) == keeps_bits(bench)
    assert beside.said() == alone.said()


@pytest.mark.parametrize("times", [1, 2])
async def test_what_other_runs_left_in_a_slot_is_not_used(open_bench: OpenBench, times: int) -> None:
    """Twice the story is more than a layer with a window keeps."""
    spec = replace(SPEC, prompt=STORY * times)
    async with open_bench() as bench:
        alone = await bench.run("alone", spec)
    async with open_bench(slots=1) as bench:
        ordinary = [replace(SPEC, prompt=STORY * length, deterministic=False) for length in (1, 2, 1)]
        for number, before in enumerate(ordinary):
            await bench.run(f"ordinary-{number}", before)
        after = await bench.run("after", spec)
        assert (await after.end).cached_tokens == 0
    assert after.said() == alone.said()


async def test_a_prompt_that_comes_back_from_the_memory_of_the_host_changes_nothing(open_bench: OpenBench) -> None:
    async with open_bench(slots=1, host_cache_bytes=2**28) as bench:
        first = await bench.run("first", SPEC)
        await bench.run("between", RunSpec(prompt="what would you do with it " * 12, max_tokens=2))
        again = await bench.run("again", SPEC)
        assert ((await again.end).cached_tokens > CHUNK) == keeps_bits(bench)
    assert again.said() == first.said()


async def test_every_choice_is_the_one_of_a_run_alone(open_bench: OpenBench) -> None:
    spec = replace(SPEC, choices=3)
    async with open_bench() as bench:
        alone = await bench.run("alone", spec)
    async with open_bench(slots=5) as bench:
        await bench.crowd(2)
        beside = await bench.run("beside", spec)
    assert {choice: beside.said(choice) for choice in range(3)} == {choice: alone.said(choice) for choice in range(3)}
    assert len({tuple(alone.token_ids(choice)) for choice in range(3)}) > 1
    assert receipt_of(beside) == receipt_of(alone)


async def test_so_many_at_once_and_others_pass_them(open_bench: OpenBench) -> None:
    async with open_bench(slots=3, deterministic_runs=1) as bench:
        specs = {
            "first": replace(SPEC, max_tokens=200, ignore_eos=True),
            "second": replace(SPEC, max_tokens=2),
            "ordinary": RunSpec(prompt="Hi", max_tokens=2),
        }
        ended: list[str] = []

        def note_end(name: str, _: object) -> None:
            ended.append(name)

        for name, spec in specs.items():
            seen = await bench.submit(name, spec)
            seen.end.add_done_callback(partial(note_end, name))
        async with asyncio.timeout(WAIT_S):
            await bench.seen["second"].end
        assert ended == ["ordinary", "first", "second"]


def keeps_bits(bench: Bench) -> bool:
    """Whether this kind of model can forget the end of a sequence and go on with the bits of a fresh one."""
    return bench.engine.info().model in ("llama", "qwen3moe")


def receipt_of(seen: Seen) -> Receipt:
    receipt = seen.end.result().receipt
    assert receipt is not None
    return receipt
