"""What a worker, or a load, takes of the devices: parts of their memory, summed over the devices."""

from collections.abc import Mapping

from orchestratord.core.facts.fleet import Worker
from orchestratord.core.facts.ledger import DeviceKey
from orchestratord.core.state import BrainState


def of_claims(state: BrainState, claims: Mapping[DeviceKey, int]) -> float:
    """1 for a whole device, and for one that is gone; 2 for two."""
    capacities = ((mib, state.ledger.capacity(key)) for key, mib in claims.items())
    return sum(min(1.0, mib / capacity) if capacity > 0 else 1.0 for mib, capacity in capacities)


def of_worker(state: BrainState, worker: Worker) -> float:
    keys = [(worker.node_id, device_id) for device_id in worker.spec.device_ids]
    return of_claims(state, {key: state.ledger.held_by(worker.worker_id, key) for key in keys})


def of_run(state: BrainState, worker: Worker) -> float:
    """Of one of the runs that the worker can do at once: alone on it, a run takes no more, since others may come."""
    return of_worker(state, worker) / max(1, worker.slots)
