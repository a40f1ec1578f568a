"""A deterministic run that is cut at any place goes on as if it had not been, whatever it asks for."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from llorch.device_kind import DeviceKind
from llorch.options.sampling import Sampling
from support.tiny_models import write_tiny_model
from worker_orcd.device import DeviceSet
from worker_orcd.engines.llama_cpp.engine import LlamaCppEngine
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.log_entry import LogEntry, RunEnd
from worker_orcd.run_spec import ConstraintKind, Message, OutputConstraint, Role, RunSpec
from worker_orcd.token_step import TokenStep

pytestmark = [pytest.mark.native, pytest.mark.req("WORK-3008")]

CONTEXT = 256
WILD = Sampling(temperature=2.0)
SPEC = RunSpec(prompt="they go down to the water", seed=3, max_tokens=16, sampling=WILD, deterministic=True)
LIST = OutputConstraint(ConstraintKind.GRAMMAR, 'root ::= "[" [a-z]{1,4} ("," [a-z]{1,4}){1,3} "]"')

ASKED = {
    "plain": SPEC,
    "greedy": replace(SPEC, sampling=Sampling(temperature=0.0)),
    "penalties": replace(SPEC, sampling=replace(WILD, repeat_penalty=1.4, frequency_penalty=0.6, repeat_last_n=8)),
    "dry": replace(SPEC, sampling=replace(WILD, dry_multiplier=1.0)),
    "xtc": replace(SPEC, sampling=replace(WILD, xtc_probability=0.7, xtc_threshold=0.02)),
    "mirostat": replace(SPEC, sampling=replace(WILD, mirostat=2)),
    "grammar": replace(SPEC, constraint=LIST, max_tokens=40),
    "chat": replace(SPEC, prompt="", messages=(Message(Role.USER, "say it"),)),
    "choices": replace(SPEC, choices=2),
    "no limit but the context": replace(SPEC, prompt="word " * 45, max_tokens=None, ignore_eos=True),
}


class Bench:
    """An engine whose runs are awaited one by one."""

    def __init__(self, engine: LlamaCppEngine) -> None:
        self._engine = engine
        self._runs = 0

    async def run(self, spec: RunSpec, prefix: Sequence[LogEntry] = ()) -> tuple[list[LogEntry], RunEnd]:
        """The log after the prefix, and the end."""
        log: list[LogEntry] = []
        end: asyncio.Future[RunEnd] = asyncio.get_running_loop().create_future()

        def on_steps(steps: Sequence[TokenStep]) -> None:
            for step in steps:
                log.extend(step.entries)
                if step.end is not None:
                    end.set_result(step.end)

        self._engine.deliver_to(on_steps)
        self._runs += 1
        await self._engine.submit(EngineRun(f"run-{self._runs}", spec, tuple(prefix)))
        async with asyncio.timeout(60):
            return log, await end


@pytest.fixture
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    pytest.importorskip("llama_cpp")
    path = write_tiny_model(tmp_path_factory.mktemp("models"), "llama")
    shape = LlamaCppShape(path, "m", DeviceSet(DeviceKind.CPU, ("cpu",)), 2, CONTEXT, threads=1)
    engine = LlamaCppEngine(shape)
    await engine.load()
    try:
        yield Bench(engine)
    finally:
        await engine.close()


def ids(log: Sequence[LogEntry], choice: int) -> list[int]:
    return [token_id for entry in log if entry.choice == choice for token_id in entry.token_ids]


@pytest.mark.parametrize("asked", ASKED)
async def test_every_cut_gives_the_same_output_and_the_same_end(bench: Bench, asked: str) -> None:
    spec = ASKED[asked]
    whole, end = await bench.run(spec)
    assert len(whole) > 3
    cuts = range(1, len(whole) + 1) if len(whole) < 50 else (1, 2, 20, len(whole) - 1, len(whole))
    for cut in cuts:
        rest, later = await bench.run(spec, whole[:cut])
        for choice in range(spec.choices):
            assert ids(whole[:cut] + rest, choice) == ids(whole, choice), f"cut after {cut} entries"
        assert [one.finish_reason for one in later.choices] == [one.finish_reason for one in end.choices], cut
        assert later.receipt == end.receipt


async def test_stop_strings_are_met_wherever_the_run_was_cut(bench: Bench) -> None:
    said = "".join(entry.text for entry in (await bench.run(SPEC))[0])
    stop = said[5:8]
    spec = replace(SPEC, stop=(stop, "never"))
    whole, end = await bench.run(spec)
    assert end.choices[0].stop_string == stop
    for cut in range(1, len(whole) + 1):
        rest, later = await bench.run(spec, whole[:cut])
        assert "".join(entry.text for entry in whole[:cut] + rest) == said[: said.index(stop)], cut
        assert later.choices[0].stop_string == stop
        assert later.receipt == end.receipt
