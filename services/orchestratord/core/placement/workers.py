"""Which of the workers that have a model a task goes to: filters and costs as for a load."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from llorch.assignment_mode import Mode
from orchestratord.core.facts.attempt import Attempt
from orchestratord.core.facts.decision import Candidate, Decision, Term, total_ms
from orchestratord.core.facts.fleet import Device, Node, Site, Worker
from orchestratord.core.facts.rules import Lane, rules_of
from orchestratord.core.facts.task import Task, TaskRequest
from orchestratord.core.placement import filters, giving_way, isolation, prediction
from orchestratord.core.placement.cost import NO_WAIT, Costs, worker_terms
from orchestratord.core.placement.lanes import lane_of_place
from orchestratord.core.placement.query import LoadRequest, Query
from orchestratord.core.placement.tally import Tally
from orchestratord.core.placement.warmth import warm_tokens
from orchestratord.core.state import BrainState

MOST_RUNS_LOOKED_AT = 256
"""Of each lower class, those that began last, when a slot is looked for."""


def place_task(state: BrainState, request: TaskRequest, lane: Lane) -> Decision:
    """The best worker, in the order of `weigh`, of those that have a slot for the task now."""
    query = _query(state, request, lane)
    ready = (
        worker
        for worker in state.fleet.workers_of_model(request.model)
        if worker.takes_runs and isolation.may_join(state, worker, lane)
    )
    return weigh(query, Tally(query, with_details=False), ready, request)


def first_to_give_way(state: BrainState, task: Task) -> Attempt | None:
    """The run that gives its slot to this task, which waits for one."""
    model, priority = task.request.model, task.request.priority
    lane = lane_of_place(state.queue[task.task_id])
    unfit = set()
    for lower in reversed(giving_way.classes_below(state, priority)):
        for attempt in islice(state.attempts.of_class(model, lower), MOST_RUNS_LOOKED_AT):
            worker = state.fleet.workers.get(attempt.worker_id)
            if worker is None or worker.worker_id in unfit or not giving_way.gives_way(state, attempt, priority):
                continue
            if _could_run(state, task.request, lane, worker):
                return attempt
            unfit.add(worker.worker_id)
    return None


def weigh(
    query: Query,
    tally: Tally,
    workers: Iterable[Worker],
    request: TaskRequest,
    wait: Callable[[Worker, float], tuple[Term, ...]] = lambda *_: (NO_WAIT,),
) -> Decision:
    """Best first: where the prompt should fit, what is preferred, cost, what is warm, free slots, what would be
    overwritten, names.

    Total, so that equal snapshots decide equally. `wait`: how long a worker has no slot, where the task itself would
    take so many ms.
    """
    costs = Costs(query)
    ranked = []
    for site, worker in _left(query, tally, workers):
        warm = warm_tokens(query.state, request, worker.worker_id)
        work = worker_terms(query, costs, site, worker, warm_tokens=warm)
        terms = (*wait(worker, total_ms(work)), *work)
        candidate = Candidate(
            worker.node_id, worker.spec.device_ids, site.where, worker_id=worker.worker_id, terms=terms
        )
        preferred = query.rules.preferences_met(site.node, site.device_ids) if query.rules.prefers else 0
        is_short = query.request.prompt_tokens >= filters.context_of(query, site)
        kept = query.state.warmth.prompts_of(worker.worker_id)
        order = (is_short, -preferred, candidate.score_ms, -warm, -worker.slots_free, kept, worker.worker_id)
        ranked.append((order, candidate))
    return Decision(
        model=query.model.name,
        ranked=tuple(candidate for _, candidate in sorted(ranked, key=lambda one: one[0])),
        removed=tally.counts,
        details=tuple(tally.details),
        considered=tally.considered,
        pinned=bool(query.rules.of(Mode.PIN)),
        fallback_used=query.rules.fallback_used,
    )


def _could_run(state: BrainState, request: TaskRequest, lane: Lane, worker: Worker) -> bool:
    """Whether the worker would do for the task if it had a free slot."""
    query = _query(state, request, lane)
    does = worker.serves and worker.attached and isolation.may_join(state, worker, lane)
    return does and any(True for _ in _left(query, Tally(query, with_details=False), (worker,)))


def _query(state: BrainState, request: TaskRequest, lane: Lane) -> Query:
    model = state.catalog.get(request.model)
    return Query(
        state,
        LoadRequest(
            model=model,
            lane=lane,
            context=model.context,
            prompt_tokens=state.rates.prompt_tokens(request.model, request.prompt_tokens),
            output_tokens=prediction.expected_output(state, request),
        ),
        rules_of(state.assignments, state.fleet, lane),
    )


def _left(query: Query, tally: Tally, workers: Iterable[Worker]) -> Iterator[tuple[Site, Worker]]:
    asked = [one for one in filters.OF_WORKERS if one.matters(query)]
    for worker in workers:
        node = query.state.fleet.nodes[worker.node_id]
        site = Site(node, _devices(node, worker), worker.spec.device_ids, worker)
        tally.considered += 1
        if tally.passes(asked, site, (site,)):
            yield site, worker


def _devices(node: Node, worker: Worker) -> tuple[Device, ...]:
    """Those that its node still reports."""
    return tuple(node.devices[device_id] for device_id in worker.spec.device_ids if device_id in node.devices)
