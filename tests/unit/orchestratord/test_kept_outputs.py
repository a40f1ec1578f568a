"""The output that is kept of a durable task is the output that its readers were shown."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from llama_orch.v2 import log_entry_pb2
from llorch.background import TaskSupervisor
from llorch.errors import Reason
from llorch.finish_reason import FinishReason
from orchestratord.convert import task_output
from orchestratord.core import effects
from orchestratord.core.events import Event
from orchestratord.core.facts.task import RunResult, Stopped, Task, TaskEnd, TaskError, TaskRequest, TaskState
from orchestratord.runtime.effect_runner import EffectRunner
from orchestratord.runtime.keeper import Keeper
from orchestratord.runtime.task_streams import TaskStreams
from orchestratord.store.interface import KeptTask
from support.manual_clock import ManualClock
from support.memory_store import MemoryStore

REQUEST = TaskRequest("task-1", "coder", b"", "digest", 1, durable=True)
STOPPED = Stopped(FinishReason.CANCELLED, 0, 0)


class Owner:
    """Stands for the brain's owner, with one task that has ended."""

    def __init__(self) -> None:
        self.state = self
        self.tasks = {"task-1": Task(REQUEST, 0.0, TaskState.CANCELLED)}
        self.posted: list[Event] = []

    def post(self, event: Event) -> None:
        self.posted.append(event)


@dataclass
class World:
    runner: EffectRunner
    streams: TaskStreams
    keeper: Keeper
    store: MemoryStore

    def write(self, count: int) -> int:
        """The attempt brings so many entries more; how many there are now."""
        log = self.streams.get("task-1").log
        if (writer := self.streams.writer("attempt-1")) is not None:
            entries = (log_entry_pb2.LogEntry(seq=len(log) + each, token_ids=[each]) for each in range(count))
            writer.append("attempt-1", list(entries))
        return len(log)

    async def kept(self) -> KeptTask:
        await self.keeper.finish()
        (kept,) = await self.store.tasks()
        return kept


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    owner: Any = Owner()
    store, streams, clock = MemoryStore(), TaskStreams(), ManualClock()
    await store.save_task(REQUEST, 0)
    async with TaskSupervisor("test") as tasks:
        keeper = Keeper(store, owner.post, clock, tasks)
        authority: Any = None
        runner = EffectRunner(owner, streams, keeper, authority, clock, tasks, None)
        streams.open(REQUEST, 0, clock.wall())
        streams.begin_attempt("task-1", "attempt-1")
        yield World(runner, streams, keeper, store)


async def test_what_comes_after_the_end_was_handed_to_the_store_is_shown_to_no_reader() -> None:
    async with running() as world:
        world.write(3)
        failed = TaskError(Reason.OUTPUT_TOO_LARGE, "too large")
        world.runner.perform(effects.PersistTerminal("task-1", failed))
        assert world.write(2) == 3
        world.runner.perform(effects.AppendTerminal(REQUEST, failed))
        ending = (await world.kept()).ending
        assert ending is not None
        assert len(task_output.from_bytes(ending.output)) == 3
        assert ending.log_epoch == world.streams.get("task-1").log.log_epoch


async def test_what_comes_while_a_task_stops_is_kept_with_its_whole_end() -> None:
    """A crash before that must not leave cursors that point beyond what is kept."""
    async with running() as world:
        epoch = world.streams.get("task-1").log.log_epoch
        world.write(3)
        world.runner.perform(effects.PersistStop("task-1", STOPPED))
        so_far = (await world.kept()).ending
        assert so_far is not None
        assert (so_far.terminal, len(task_output.from_bytes(so_far.output))) == (STOPPED, 3)
        assert so_far.log_epoch != epoch
        assert world.write(2) == 5
        end = TaskEnd(RunResult(()), 0, 0)
        world.runner.perform(effects.PersistTerminal("task-1", end))
        assert world.write(2) == 5
        whole = (await world.kept()).ending
        assert whole is not None
        assert (whole.terminal, len(task_output.from_bytes(whole.output)), whole.log_epoch) == (end, 5, epoch)
