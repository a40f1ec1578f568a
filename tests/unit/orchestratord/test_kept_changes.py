"""Commands whose change has to be stored: one after the other, answered when it is kept, and never without end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from llorch.background import TaskSupervisor
from llorch.errors import AlreadyExists, Unavailable
from orchestratord.core import effects, events
from orchestratord.core.brain import Brain
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.records import RecordChange
from orchestratord.core.state import BrainConfig
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.keeper import Keeper
from orchestratord.runtime.kept_changes import KeptChanges
from orchestratord.store.interface import AuditEntry
from support.manual_clock import ManualClock
from support.memory_store import FullDisk, MemoryStore

AIDER = App("aider", "0f" * 32)


class HangingDisk(MemoryStore):
    """Writes when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()

    async def save_records(self, changes: Sequence[RecordChange], audit: AuditEntry | None = None) -> None:
        await self.let.wait()
        await super().save_records(changes, audit)


@dataclass
class System:
    owner: BrainOwner
    changes: KeptChanges


@asynccontextmanager
async def running(store: MemoryStore, within_s: float = 5.0) -> AsyncIterator[System]:
    clock = ManualClock()
    owner = BrainOwner(Brain(BrainConfig(), lambda prefix: prefix), clock)
    async with TaskSupervisor("test") as tasks:
        keeper = Keeper(store, owner.post, clock, tasks)

        def perform(effect: effects.Effect) -> None:
            if isinstance(effect, effects.PersistChange):
                keeper.keep_change(effect)

        owner.connect(perform)
        yield System(owner, KeptChanges(owner, keeper, within_s))


async def test_a_change_is_answered_when_it_is_kept_and_in_force() -> None:
    store = MemoryStore()
    async with running(store) as system:
        assert await system.changes.ask(events.AppCreated(AIDER)) == AIDER
        assert system.owner.state.apps.find("aider") == AIDER
        assert await store.records() == [AIDER]


async def test_a_change_that_can_not_be_kept_is_refused_and_was_never_in_force() -> None:
    store = FullDisk(1)
    async with running(store) as system:
        with pytest.raises(Unavailable, match="the disk is full"):
            await system.changes.ask(events.AppCreated(AIDER))
        assert system.owner.state.apps.find("aider") is None
        await system.changes.ask(events.AppCreated(AIDER))
        assert await store.records() == [AIDER]


async def test_of_two_that_contradict_each_other_at_once_one_is_refused() -> None:
    async with running(MemoryStore()) as system:
        asked = [system.changes.ask(events.AppCreated(App("aider", key * 32))) for key in ("1f", "2f")]
        first, second = await asyncio.gather(*asked, return_exceptions=True)
        assert first == App("aider", "1f" * 32)
        assert isinstance(second, AlreadyExists)


async def test_a_change_whose_caller_went_away_is_made_and_the_next_one_waits_for_it() -> None:
    store = HangingDisk()
    async with running(store) as system:
        gone = asyncio.create_task(system.changes.ask(events.AppCreated(AIDER)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert system.owner.state.proposed is not None
        gone.cancel()
        following = asyncio.create_task(system.changes.ask(events.AppDeleted("aider")))
        await asyncio.wait([gone])
        store.let.set()
        await following
        assert system.owner.state.apps.find("aider") is None
        assert await store.records() == []


async def test_a_disk_that_hangs_is_waited_for_with_a_deadline() -> None:
    store = HangingDisk()
    async with running(store, within_s=0.05) as system:
        with pytest.raises(Unavailable, match="whether the change is kept is not known yet"):
            await system.changes.ask(events.AppCreated(AIDER))
        for _ in range(2):
            with pytest.raises(Unavailable, match="an earlier change is still being written, and nothing was changed"):
                await system.changes.ask(events.AppCreated(App("other", "1f" * 32)))
        store.let.set()
        await system.changes.ask(events.AppCreated(App("other", "1f" * 32)))
        assert [app.name for app in system.owner.state.apps.all()] == ["aider", "other"]
