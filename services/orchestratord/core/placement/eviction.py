"""Which workers leave memory so that another model has room: as little as will do, and what is needed least."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from orchestratord.core.facts.decision import Term
from orchestratord.core.facts.fleet import Worker
from orchestratord.core.facts.ledger import DeviceKey
from orchestratord.core.placement import replicas
from orchestratord.core.placement.cost import load_term
from orchestratord.core.state import BrainState

EVICT_MS = 500.0
"""A worker ends, and the driver gives its memory back; the ledger bounds the wait for that. No eviction costs less."""

_TRY_ALL_UP_TO = 8


@dataclass(frozen=True, slots=True)
class Eviction:
    """Workers that would have to leave. `regret_ms`: expected time to load them again, by how likely that is soon."""

    worker_ids: tuple[str, ...]
    regret_ms: float

    @property
    def terms(self) -> tuple[Term, ...]:
        """What it adds to the cost of a place: the wait for the memory, and the regret."""
        return (Term("evict", EVICT_MS), Term("regret", self.regret_ms)) if self.worker_ids else ()


NO_EVICTION = Eviction((), 0.0)


def cheapest(state: BrainState, claims: Mapping[DeviceKey, int]) -> Eviction | None:
    """The workers to evict so that all claims fit; none, if they fit now. None, if they don't fit even then.

    The set with the least regret; if equal, the smaller one, and the least recently used workers. Every set is tried
    where few workers could leave; where many could, workers are added by regret, the least first, until there is room.
    """
    lacking = {key: mib - state.ledger.available(key) for key, mib in claims.items()}
    lacking = {key: mib for key, mib in lacking.items() if mib > 0}
    if not lacking:
        return NO_EVICTION
    may_go = [worker for worker in _holders(state, lacking) if may_leave(state, worker)]
    if not _is_enough(state, may_go, lacking):
        return None
    regrets = {worker.worker_id: regret_ms(state, worker) for worker in may_go}
    may_go.sort(key=lambda worker: (regrets[worker.worker_id], worker.last_used_at, worker.worker_id))
    chosen = _best_set(state, may_go, regrets, lacking)
    return Eviction(
        worker_ids=tuple(worker.worker_id for worker in chosen),
        regret_ms=sum(regrets[worker.worker_id] for worker in chosen),
    )


def fits_when_all_left(state: BrainState, claims: Mapping[DeviceKey, int]) -> bool:
    """Whether it would fit if all workers that may ever have to leave had left: busy, young and promised ones too."""
    return all(mib <= free_when_all_left(state, key) for key, mib in claims.items())


def free_when_all_left(state: BrainState, device: DeviceKey) -> int:
    """MiB beside the workers that a rule keeps loaded."""
    return state.ledger.capacity(device) - _kept_mib(state, device)


def may_leave(state: BrainState, worker: Worker) -> bool:
    return (
        worker.is_idle
        and worker.leaving is None
        and not is_kept(state, worker)
        and residency_over(state, worker)
        and not is_waited_for(state, worker)
    )


def is_kept(state: BrainState, worker: Worker) -> bool:
    """A rule keeps it loaded."""
    return replicas.is_kept(state, worker)


def residency_over(state: BrainState, worker: Worker) -> bool:
    """It was loaded long enough ago: models that take turns too fast are loaded all the time."""
    return worker.ready_at is not None and state.now - worker.ready_at >= state.config.min_residency_s


def is_waited_for(state: BrainState, worker: Worker) -> bool:
    """Tasks are about to come to it, as soon as the link to it is there."""
    return not worker.attached and state.queue.has_waiting(worker.spec.model)


def regret_ms(state: BrainState, worker: Worker) -> float:
    """Reload time × probability of use while its place is taken at least; 0 if the model has another worker."""
    name = worker.spec.model
    if any(other.serves and other is not worker for other in state.fleet.workers_of_model(name)):
        return 0.0
    reload = reload_ms(state, worker)
    place_taken_s = reload / 1000 + state.config.min_residency_s
    return reload * state.demand.probability(name, state.now, place_taken_s)


def reload_ms(state: BrainState, worker: Worker) -> float:
    """The time to load the worker's model there again."""
    return load_term(state, worker.spec.model, worker.node_id).ms


def _best_set(
    state: BrainState, may_go: Sequence[Worker], regrets: Mapping[str, float], lacking: Mapping[DeviceKey, int]
) -> Sequence[Worker]:
    if len(may_go) > _TRY_ALL_UP_TO:
        return _greedy(state, may_go, lacking)
    sets = (chosen for size in range(1, len(may_go) + 1) for chosen in combinations(may_go, size))
    enough = (chosen for chosen in sets if _is_enough(state, chosen, lacking))
    return min(enough, key=lambda chosen: (sum(regrets[worker.worker_id] for worker in chosen), len(chosen)))


def _greedy(state: BrainState, may_go: Sequence[Worker], lacking: Mapping[DeviceKey, int]) -> Sequence[Worker]:
    chosen: list[Worker] = []
    for worker in may_go:
        chosen.append(worker)
        if _is_enough(state, chosen, lacking):
            break
    for worker in list(reversed(chosen)):
        rest = [other for other in chosen if other is not worker]
        if _is_enough(state, rest, lacking):
            chosen = rest
    return chosen


def _is_enough(state: BrainState, leaving: Iterable[Worker], lacking: Mapping[DeviceKey, int]) -> bool:
    freed = dict.fromkeys(lacking, 0)
    for worker in leaving:
        for key in _keys(worker):
            if key in freed:
                freed[key] += state.ledger.held_by(worker.worker_id, key)
    return all(freed[key] >= mib for key, mib in lacking.items())


def _holders(state: BrainState, keys: Iterable[DeviceKey]) -> list[Worker]:
    load_ids = dict.fromkeys(load_id for key in keys for load_id in state.ledger.loads_on(key))
    return [state.fleet.workers[load_id] for load_id in load_ids if load_id in state.fleet.workers]


def _kept_mib(state: BrainState, key: DeviceKey) -> int:
    if not len(state.assignments):
        return 0
    kept = (worker for worker in _holders(state, (key,)) if is_kept(state, worker))
    return sum(state.ledger.held_by(worker.worker_id, key) for worker in kept)


def _keys(worker: Worker) -> list[DeviceKey]:
    return [(worker.node_id, device_id) for device_id in worker.spec.device_ids]
