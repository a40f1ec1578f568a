"""Hands the metrics to scrapers. The brain's state is read on the event loop's thread only."""

import asyncio
from collections.abc import Iterable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

from orchestratord.metrics import families, fleet_families
from orchestratord.metrics.watcher import Watcher
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.keeper import Keeper

_ANSWER_WITHIN_S = 5.0


class OrchestratorMetrics:
    """`families` and `text` are for the event loop's thread."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, owner: BrainOwner, keeper: Keeper, watcher: Watcher) -> None:
        self._owner = owner
        self._keeper = keeper
        self._watcher = watcher
        self._replicas = fleet_families.ReplicaNumbers()

    def families(self) -> list[Metric]:
        state, now = self._owner.state, self._owner.now()
        tallies = self._watcher.tallies
        return [
            *families.counted(tallies),
            *families.recent(tallies, state.now),
            *families.queues(state),
            *fleet_families.nodes(state, now),
            *fleet_families.devices(state),
            *fleet_families.workers(state, self._replicas),
            families.counter("store_failures", "Writes that the store could not do.", self._keeper.failures),
        ]

    def text(self) -> bytes:
        """In the text exposition format."""
        return generate_latest(_Taken(self.families()))

    def registry(self, loop: asyncio.AbstractEventLoop) -> CollectorRegistry:
        """For a server on a thread of its own."""
        registry = CollectorRegistry()
        registry.register(_FromOtherThread(self, loop))
        return registry


class _FromOtherThread(Collector):
    def __init__(self, metrics: OrchestratorMetrics, loop: asyncio.AbstractEventLoop) -> None:
        self._metrics = metrics
        self._loop = loop

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand, so that registering does not ask the loop."""
        return ()

    def collect(self) -> Iterable[Metric]:
        return asyncio.run_coroutine_threadsafe(self._take(), self._loop).result(_ANSWER_WITHIN_S)

    async def _take(self) -> list[Metric]:
        return self._metrics.families()


class _Taken(CollectorRegistry):
    def __init__(self, taken: list[Metric]) -> None:
        super().__init__()
        self._families = taken

    def collect(self) -> Iterable[Metric]:
        return self._families
