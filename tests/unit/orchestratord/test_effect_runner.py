"""What the shell around the brain does when the store fails, and what it remembers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llorch.background import TaskSupervisor
from llorch.clock import SystemClock
from llorch.errors import Reason, Unavailable
from orchestratord.core import effects, events
from orchestratord.core.brain import Brain
from orchestratord.core.state import BrainConfig
from orchestratord.core.task import TaskRequest
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.effect_runner import EffectRunner
from orchestratord.runtime.task_streams import TaskStreams
from orchestratord.store.interface import Incarnation
from orchestratord.store.memory import MemoryStore

REQUEST = TaskRequest("task-1", "coder", b"", "digest", 1, durable=True)


class FullDisk(MemoryStore):
    async def save_task(self, request: TaskRequest) -> None:
        await asyncio.sleep(0)
        raise Unavailable(Reason.STORE_FAILED, "the disk is full")


@asynccontextmanager
async def runner(store: MemoryStore) -> AsyncIterator[tuple[EffectRunner, list[events.Event]]]:
    clock = SystemClock()
    owner = BrainOwner(Brain(BrainConfig(), lambda prefix: f"{prefix}-1"), clock)
    posted: list[events.Event] = []
    owner.post = posted.append  # type: ignore[method-assign,assignment]  # what it would handle is proven elsewhere
    async with TaskSupervisor("test") as tasks:
        yield EffectRunner(owner, TaskStreams(), store, Incarnation("c", 1), clock, tasks, None), posted


async def test_a_task_that_can_not_be_kept_is_refused_and_does_not_run_on() -> None:
    async with runner(FullDisk()) as (shell, posted):
        shell.perform(effects.PersistTask(REQUEST))
        with pytest.raises(Unavailable, match="the disk is full"):
            await shell.wait_kept("task-1")
        assert posted == [events.TaskNotKept("task-1", "the disk is full")]


async def test_a_task_whose_submitter_went_away_fails_too_if_it_can_not_be_kept() -> None:
    async with runner(FullDisk()) as (shell, posted):
        shell.perform(effects.PersistTask(REQUEST))
        waiting = asyncio.create_task(shell.wait_kept("task-1"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0.01)
        assert posted == [events.TaskNotKept("task-1", "the disk is full")]
        assert not shell._keeping
