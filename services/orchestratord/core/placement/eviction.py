"""Which workers leave memory so that another model has room: as little as will do, and what is needed least."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from orchestratord.core.facts.decision import Term
from orchestratord.core.facts.fleet import Worker
from orchestratord.core.facts.ledger import DeviceKey
from orchestratord.core.placement import replicas
from orchestratord.core.placement.cost import load_term
from orchestratord.core.placement.query import LoadRequest
from orchestratord.core.state import BrainState

EVICT_MS = 500.0
"""A worker ends, and the driver gives its memory back; the ledger bounds the wait for that. No eviction costs less."""

MISSED_WITHIN = 5
"""A worker that leaves is missed if one of the next so many requests, for any model, is for its own."""

REGRET_MS = 9000.0
"""What it costs that it is missed, beside the load: what is asked for soon keeps others from staying, be it small or
large. The more this counts against the time to load, the fewer loads there are, and the longer they take.
"""

_TRY_ALL_UP_TO = 8

MayGo = Callable[[Worker], bool]
CostMs = Callable[[Worker], float]


@dataclass(frozen=True, slots=True)
class Eviction:
    """Workers that would have to leave, beside those that are leaving already. `regret_ms`: what it costs that they are
    gone.
    """

    worker_ids: tuple[str, ...]
    regret_ms: float

    @property
    def terms(self) -> tuple[Term, ...]:
        """What it adds to the cost of a place: the wait for the memory, and the regret."""
        return (Term("evict", EVICT_MS), Term("regret", self.regret_ms))


def lacking(state: BrainState, claims: Mapping[DeviceKey, int]) -> dict[DeviceKey, int]:
    """MiB by device, above 0, that workers which stay hold too much for these claims.

    What is promised to other loads is not there; what leaving workers will give back is.
    """
    short = {key: mib - state.ledger.available(key) for key, mib in claims.items()}
    found = {key: mib - _leaving_mib(state, key) for key, mib in short.items() if mib > 0}
    return {key: mib for key, mib in found.items() if mib > 0}


def leaving(state: BrainState, claims: Mapping[DeviceKey, int]) -> set[str]:
    """Workers on these devices that take nothing new, and leave as soon as nothing runs on them."""
    return {worker.worker_id for key in claims for worker in state.fleet.workers_on_device(*key) if not worker.serves}


def cheapest(state: BrainState, claims: Mapping[DeviceKey, int], may_go: MayGo, cost_ms: CostMs) -> Eviction | None:
    """The workers to evict so that all claims fit, once they and those that leave already are gone. None, if they don't
    fit even then.

    The set that costs least; if equal, what is loaded again sooner, the smaller one, and the least recently used
    workers. Every set is tried where few workers could leave; where many could, workers are added by cost, the least
    first, until there is room.
    """
    short = lacking(state, claims)
    if not short:
        return Eviction((), 0.0)
    found = [worker for worker in _holders(state, short) if may_go(worker)]
    if not _is_enough(state, found, short):
        return None
    costs = {worker.worker_id: (cost_ms(worker), reload_ms(state, worker)) for worker in found}
    found.sort(key=lambda worker: (costs[worker.worker_id], worker.last_used_at, worker.worker_id))
    chosen = _best_set(state, found, costs, short)
    return Eviction(
        worker_ids=tuple(worker.worker_id for worker in chosen),
        regret_ms=sum(costs[worker.worker_id][0] for worker in chosen),
    )


def fits_when_all_left(state: BrainState, claims: Mapping[DeviceKey, int]) -> bool:
    """Whether it would fit if all workers that may ever have to leave had left: busy, young and promised ones too."""
    return all(mib <= free_when_all_left(state, key) for key, mib in claims.items())


def free_when_all_left(state: BrainState, device: DeviceKey) -> int:
    """MiB beside the workers that a rule keeps loaded."""
    return state.ledger.capacity(device) - _kept_mib(state, device)


def may_leave(state: BrainState, worker: Worker, request: LoadRequest) -> bool:
    """At once. For tasks, one that was loaded just now as well: it has served what waited for it."""
    return (
        worker.is_idle
        and worker.leaving is None
        and not is_kept(state, worker)
        and (request.for_tasks or residency_over(state, worker))
        and not is_waited_for(state, worker)
        and has_been_quiet(state, worker, request.rank, request.model.name)
    )


def has_been_quiet(state: BrainState, worker: Worker, rank: int, rival: str) -> bool:
    """Tasks of a lower class have a worker leave that served a higher one only once it has been idle for as long as the
    switch takes: else each pause of a conversation costs two loads.
    """
    if worker.last_class is None or worker.last_class >= rank:
        return True
    switch_ms = load_term(state, rival, worker.node_id).ms + reload_ms(state, worker)
    return 1000 * (state.now - worker.last_used_at) >= switch_ms


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
    """What it is expected to cost that the worker is gone; 0 if the model has another one."""
    name = worker.spec.model
    if any(other.serves and other is not worker for other in state.fleet.workers_of_model(name)):
        return 0.0
    return state.demand.among_next(MISSED_WITHIN, name) * (REGRET_MS + reload_ms(state, worker))


def reload_ms(state: BrainState, worker: Worker) -> float:
    """The time to load the worker's model there again."""
    return load_term(state, worker.spec.model, worker.node_id).ms


def _best_set(
    state: BrainState,
    may_go: Sequence[Worker],
    costs: Mapping[str, tuple[float, float]],
    short: Mapping[DeviceKey, int],
) -> Sequence[Worker]:
    if len(may_go) > _TRY_ALL_UP_TO:
        return _greedy(state, may_go, short)

    def cost(chosen: Sequence[Worker]) -> tuple[float, float, int]:
        each = [costs[worker.worker_id] for worker in chosen]
        return sum(ms for ms, _ in each), sum(ms for _, ms in each), len(chosen)

    sets = (chosen for size in range(1, len(may_go) + 1) for chosen in combinations(may_go, size))
    return min((chosen for chosen in sets if _is_enough(state, chosen, short)), key=cost)


def _greedy(state: BrainState, may_go: Sequence[Worker], short: Mapping[DeviceKey, int]) -> Sequence[Worker]:
    chosen: list[Worker] = []
    for worker in may_go:
        chosen.append(worker)
        if _is_enough(state, chosen, short):
            break
    for worker in list(reversed(chosen)):
        rest = [other for other in chosen if other is not worker]
        if _is_enough(state, rest, short):
            chosen = rest
    return chosen


def _is_enough(state: BrainState, leaving: Iterable[Worker], short: Mapping[DeviceKey, int]) -> bool:
    freed = dict.fromkeys(short, 0)
    for worker in leaving:
        for key in _keys(worker):
            if key in freed:
                freed[key] += state.ledger.held_by(worker.worker_id, key)
    return all(freed[key] >= mib for key, mib in short.items())


def _holders(state: BrainState, keys: Iterable[DeviceKey]) -> list[Worker]:
    load_ids = dict.fromkeys(load_id for key in keys for load_id in state.ledger.loads_on(key))
    return [state.fleet.workers[load_id] for load_id in load_ids if load_id in state.fleet.workers]


def _leaving_mib(state: BrainState, key: DeviceKey) -> int:
    going = (worker for worker in _holders(state, (key,)) if not worker.serves)
    return sum(state.ledger.held_by(worker.worker_id, key) for worker in going)


def _kept_mib(state: BrainState, key: DeviceKey) -> int:
    if not len(state.assignments):
        return 0
    kept = (worker for worker in _holders(state, (key,)) if is_kept(state, worker))
    return sum(state.ledger.held_by(worker.worker_id, key) for worker in kept)


def _keys(worker: Worker) -> list[DeviceKey]:
    return [(worker.node_id, device_id) for device_id in worker.spec.device_ids]
