"""Whose turn it is on devices that are full of models that work: which workers take nothing new, and leave, for a model
that tasks wait for.

A load begins when its place is free, and until then it holds a reservation: the place, what it will take there, and the
workers that leave for it. What is promised once is promised to no other load, so a turn that was given is not lost.

What has nothing to do goes first (`eviction`). Of what works,

- a worker for which no task waits may be asked once the tasks of the rival have waited, all together, for several times
  what the switch costs: it loads the rival, and loads again what left;
- a worker for which tasks wait may be asked by a task of a higher class; by one of its class whose app has had so much
  less that it is behind even after it has paid for the switch, if what waits for the worker is more than the switch
  takes; and by one that has waited for as long as any task may, if that is longer than what waits there has, and the
  worker has served its grant, which is all that waited for it when it was loaded.

So a flood costs other apps one switch, two apps that want one device each get long turns and not only loads, and no
task waits for ever.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from llorch.worker_state import WorkerState
from orchestratord.core.facts.decision import Candidate
from orchestratord.core.facts.fleet import Worker
from orchestratord.core.facts.ledger import DeviceKey
from orchestratord.core.facts.rules import Lane
from orchestratord.core.facts.task import Task
from orchestratord.core.placement import allowances, eviction, giving_way, prediction, replicas, shares
from orchestratord.core.placement.cost import load_term
from orchestratord.core.placement.eviction import EVICT_MS, Eviction
from orchestratord.core.placement.lanes import lane_of_place
from orchestratord.core.placement.load_planning import Outlook, plan_of
from orchestratord.core.placement.pipeline import evicted_by
from orchestratord.core.state import BrainState

WORTH_OF_SWITCHES = 4
"""A worker that works, and for which no task waits, goes when the waits of the rival's tasks sum up to so many times
what the switch costs.
"""

LONGEST_IN_SWITCHES = 8
"""A task that is due for a switch waits no longer for it than so many of them take, or than its class may."""

LOOK_EVERY_S = 1.0
"""Turns come with time, and by what other apps get meanwhile."""


@dataclass(frozen=True, slots=True)
class Rival:
    """What waits in one lane: the first task of the highest class that does, since when the oldest of the first of each
    app waits, and how many.
    """

    lane: Lane
    first: Task
    since: float
    tasks: float

    @property
    def app(self) -> str:
        return self.first.request.app

    @property
    def model(self) -> str:
        return self.lane.model


def rival_of(state: BrainState, lane: Lane) -> Rival | None:
    """None if no task of the lane may start."""
    heads = [
        state.tasks[task_id] for task_id in state.queue.heads(lane.model) if lane_of_place(state.queue[task_id]) == lane
    ]
    tasks = state.queue.count(lane.model, allowances.may_start(state, lane.model))
    if not heads or tasks < 1:
        return None
    first = min(heads, key=lambda task: state.config.priorities.index(task.request.priority))
    return Rival(lane, first, min(task.created_at for task in heads), tasks)


def reserve(state: BrainState, rival: Rival, looked: Outlook) -> Outlook:
    """With a plan, if workers may be asked to leave for the rival at one of the places where it would have room then;
    the place where that costs least.
    """
    found = [
        replace(place, evicted=evicted_by(state, leave.worker_ids), terms=(*place.terms, *leave.terms))
        for place in looked.decision.blocked
        if (leave := _who_leaves(state, rival, place)) is not None
    ]
    if not found:
        return looked
    chosen = min(found, key=lambda place: (place.score_ms, place.node_id, place.device_ids))
    decision = replace(looked.decision, ranked=(chosen,), waits=False, blocked=())
    return replace(looked, decision=decision, plan=plan_of(chosen, looked.context))


def may_be_asked(state: BrainState, worker: Worker, rival: Rival, share: float) -> bool:
    """Whether the worker may be told to take nothing new, for a model that would take this share of the devices."""
    if not _could_go(state, worker, rival):
        return False
    if worker.state is WorkerState.STARTING:
        return _loads_for_less(state, worker, rival)
    switch_s = (_load_ms(state, rival, worker) + eviction.reload_ms(state, worker)) / 1000
    waited_s = state.now - rival.since
    priority = rival.first.request.priority
    waiting = replicas.heads_for(state, worker)
    if not waiting:
        if worker.is_idle:
            return eviction.has_been_quiet(state, worker, state.queue.rank(rival.first.task_id), rival.model)
        if giving_way.worker_gives_way(state, worker, priority):
            return True
        is_worth_it = waited_s * rival.tasks >= WORTH_OF_SWITCHES * switch_s
        return is_worth_it and giving_way.highest_class(state, worker) >= state.queue.rank(rival.first.task_id)
    here, there = state.queue.rank(rival.first.task_id), min(state.queue.rank(task.task_id) for task in waiting)
    if there < here:
        return False
    is_higher = here < there and here == state.config.priorities.index(priority)
    if is_higher and not giving_way.has_grants(state, worker):
        return True
    if _is_behind(state, worker, rival, waiting[0].request.app, switch_s, share):
        return True
    is_older = rival.since < min(task.created_at for task in waiting)
    return is_older and worker.grant < 1 and waited_s >= longest_wait_s(state, rival, switch_s)


def longest_wait_s(state: BrainState, rival: Rival, switch_s: float) -> float:
    """The highest class is served first; a lower one waits behind it as long as it may."""
    is_highest = rival.first.request.priority == state.config.priorities[0]
    of_class_s = state.config.model_wait_s if is_highest else state.config.max_starvation_s
    return max(of_class_s, LONGEST_IN_SWITCHES * switch_s)


def _who_leaves(state: BrainState, rival: Rival, place: Candidate) -> Eviction | None:
    keys = [(place.node_id, device_id) for device_id in place.device_ids]
    claims: Mapping[DeviceKey, int] = dict(zip(keys, place.claims_mib, strict=True))
    share = shares.of_claims(state, claims)
    return eviction.cheapest(
        state,
        claims,
        may_go=lambda worker: may_be_asked(state, worker, rival, share),
        cost_ms=lambda worker: _cost_ms(state, worker, rival),
    )


def _cost_ms(state: BrainState, worker: Worker, rival: Rival) -> float:
    """What waits for the rival waits until the worker has done what it does; what waits for the worker, until the rival
    is loaded at least; and the worker is missed later.
    """
    waiting = state.queue.waiting(worker.spec.model) * (_load_ms(state, rival, worker) + EVICT_MS)
    gives_way = giving_way.worker_gives_way(state, worker, rival.first.request.priority)
    busy_ms = 0.0 if gives_way else prediction.busy_ms(state, worker)
    return busy_ms * rival.tasks + waiting + eviction.regret_ms(state, worker)


def _could_go(state: BrainState, worker: Worker, rival: Rival) -> bool:
    if worker.leaving is not None or worker.spec.model == rival.model or eviction.is_kept(state, worker):
        return False
    if worker.state is WorkerState.STARTING:
        return True
    is_up = worker.state is WorkerState.READY and worker.ready_at is not None
    return is_up and not eviction.is_waited_for(state, worker)


def _loads_for_less(state: BrainState, worker: Worker, rival: Rival) -> bool:
    """Whether the load is given up: it began for tasks of lower classes, and they have not been passed over for too
    long. What a caller asked for, or the tasks of the same class, is loaded to the end.
    """
    here = state.queue.rank(rival.first.task_id)
    if worker.asked or here != state.config.priorities.index(rival.first.request.priority):
        return False
    waiting = replicas.heads_for(state, worker)
    return bool(waiting) and all(state.queue.rank(task.task_id) > here for task in waiting)


def _is_behind(state: BrainState, worker: Worker, rival: Rival, app: str, switch_s: float, share: float) -> bool:
    """Whether the rival's app has had so much less than the first one there."""
    accounts, waiting = state.queue.accounts, state.queue.waiting(worker.spec.model)
    pays = switch_s * share / accounts.weight(rival.app)
    is_behind = app != rival.app and accounts.time_of(app) - accounts.time_of(rival.app) > pays
    return is_behind and waiting * prediction.holding_s(state, worker.spec.model) / worker.slots >= switch_s


def _load_ms(state: BrainState, rival: Rival, worker: Worker) -> float:
    return load_term(state, rival.model, worker.node_id).ms
