import asyncio

import pytest

from orchestratord.core.brain import Brain
from orchestratord.core.state import BrainConfig
from orchestratord.runtime import state_changes
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.state_changes import StateChanges
from support.manual_clock import ManualClock


async def test_a_watcher_looks_again_also_where_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load that a tick gives up has no effects, and without a node there are no other events: `llorch load` hung."""
    monkeypatch.setattr(state_changes, "AT_MOST_EVERY_S", 0.0)
    monkeypatch.setattr(state_changes, "AT_LEAST_EVERY_S", 0.01)
    changes = StateChanges(BrainOwner(Brain(BrainConfig(), str), ManualClock()))
    looks = 0
    async with asyncio.timeout(10):
        async for _ in changes.follow():
            looks += 1
            if looks == 3:
                break
