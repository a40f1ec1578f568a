"""What a lagging reader gets; the rest is proven over a real connection."""

import asyncio
from typing import Any

import pytest

from llama_orch.v2 import run_pb2, worker_service_pb2
from llorch.clock import SystemClock
from llorch.errors import Unavailable
from worker_orcd.api import run_stream
from worker_orcd.api.run_stream import RunStream
from worker_orcd.engines.sim import sim_text
from worker_orcd.engines.sim.engine import SimEngine, SimShape
from worker_orcd.engines.sim.parameters import SimParameters
from worker_orcd.run_keeper import RunKeeper
from worker_orcd.run_spec import RunSpec
from worker_orcd.run_table import RunTable


class Reader:
    """A reader's side of a stream: takes a message whenever the test says so."""

    def __init__(self) -> None:
        self.frames: list[run_pb2.StepFrame] = []
        self.ready = asyncio.Event()

    async def write(self, message: worker_service_pb2.StreamRunsResponse) -> None:
        await self.ready.wait()
        self.frames.append(message.frame)

    def entries(self, attempt_id: str) -> list[Any]:
        deltas = (delta for frame in self.frames for delta in frame.deltas if delta.attempt_id == attempt_id)
        return [entry for delta in deltas for entry in delta.entries]


async def run_two(engine: SimEngine, keeper: RunKeeper) -> None:
    for seed in (1, 2):
        await keeper.start(f"a{seed}", b"x", RunSpec(prompt="hi", seed=seed, max_tokens=100))
    async with asyncio.timeout(5):
        while keeper.table.unfinished:
            await asyncio.sleep(0)


async def test_a_reader_that_lags_gets_everything_it_missed_in_one_frame() -> None:
    engine = SimEngine(SimParameters(), SimShape("m", slots=2, context_per_slot=1000))
    await engine.load()
    clock = SystemClock()
    keeper = RunKeeper(engine, RunTable(clock, 2), clock)
    stream, reader = RunStream(keeper, {}), Reader()
    keeper.watch(stream)
    writing = asyncio.ensure_future(stream.write_to(reader))  # type: ignore[arg-type]  # all of it that is used
    await run_two(engine, keeper)
    stream.close()
    reader.ready.set()
    async with asyncio.timeout(5):
        await writing
    assert len(reader.frames) == 2, "the empty one that waited, and one with everything"
    for seed in (1, 2):
        entries = reader.entries(f"a{seed}")
        assert [entry.seq for entry in entries] == list(range(100))
        assert "".join(entry.text for entry in entries) == sim_text(seed, 0, 100)
    await engine.close()


async def test_a_reader_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_stream, "WRITE_DEADLINE_S", 0.05)
    engine = SimEngine(SimParameters(), SimShape("m", slots=2, context_per_slot=1000))
    await engine.load()
    clock = SystemClock()
    keeper = RunKeeper(engine, RunTable(clock, 2), clock)
    with pytest.raises(Unavailable):
        await RunStream(keeper, {}).write_to(Reader())  # type: ignore[arg-type]  # all of it that is used
    await engine.close()
