"""What models and pools can do, as engines declare it."""

from collections.abc import Sequence
from dataclasses import dataclass

from llorch.worker_state import WorkerState
from orchestratord.core.facts.fleet import Pool, Worker
from orchestratord.core.facts.model import Model
from orchestratord.core.state import BrainState


@dataclass(frozen=True, slots=True)
class ModelCapabilitiesView:
    """`worker` has the model and says what its engine can do; None while no worker is ready."""

    model: str
    context_max: int
    worker: Worker | None


@dataclass(frozen=True, slots=True)
class PoolEnginesView:
    """Each engine as "name version"."""

    pool_id: str
    engine_versions: Sequence[str]


def of_models(state: BrainState) -> list[ModelCapabilitiesView]:
    return [_of_model(state, model) for model in state.catalog.all()]


def of_pools(state: BrainState) -> list[PoolEnginesView]:
    """By the id of the pool."""
    pools = {pool.pool_id: pool for node in state.fleet.nodes.values() for pool in node.pools.values()}
    return [_of_pool(state, pools[pool_id]) for pool_id in sorted(pools)]


def _of_model(state: BrainState, model: Model) -> ModelCapabilitiesView:
    """Of several workers, the one that takes the longest requests."""
    found = ModelCapabilitiesView(model.name, model.known_context or 0, None)
    longest = 0
    for worker in state.fleet.workers_of_model(model.name):
        if worker.state is WorkerState.READY and worker.engine and worker.engine.context_per_slot >= longest:
            longest = worker.engine.context_per_slot
            found = ModelCapabilitiesView(model.name, longest, worker)
    return found


def _of_pool(state: BrainState, pool: Pool) -> PoolEnginesView:
    """Workers that use devices of other pools, too, run in none."""
    versions = {
        f"{worker.engine.engine} {worker.engine.engine_version}"
        for worker in state.fleet.workers_on(pool.node_id)
        if worker.engine and set(worker.spec.device_ids) <= set(pool.device_ids)
    }
    return PoolEnginesView(pool.pool_id, sorted(versions))
