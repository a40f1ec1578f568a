"""What would happen to a task that came now, or to one that waits: the same decisions, with every reason. Changes
nothing.
"""

from dataclasses import replace

from llorch.counted import counted
from llorch.worker_state import WorkerState
from orchestratord.core.facts.backlog import Backlog
from orchestratord.core.facts.contexts import contexts_to_try
from orchestratord.core.facts.decision import Candidate, Decision, DecisionRecord, Outcome, Term, total_ms
from orchestratord.core.facts.fleet import Worker
from orchestratord.core.facts.model import Model
from orchestratord.core.facts.rules import Lane, Wishes, rules_of
from orchestratord.core.facts.task import Task, TaskRequest
from orchestratord.core.placement import filters, prediction
from orchestratord.core.placement.availability import verdict
from orchestratord.core.placement.cost import NO_WAIT, load_term
from orchestratord.core.placement.decision_of import record_of
from orchestratord.core.placement.lanes import lane_of, lane_of_task, overrides_of, rank_in
from orchestratord.core.placement.load_planning import outlook
from orchestratord.core.placement.pipeline import place_load
from orchestratord.core.placement.query import LoadRequest, Query
from orchestratord.core.placement.sentences import slot_behind
from orchestratord.core.placement.tally import Tally
from orchestratord.core.placement.workers import weigh
from orchestratord.core.state import BrainState


def explain(
    state: BrainState, name: str, app: str, prompt_tokens: int, output_tokens: int, wishes: Wishes | None = None
) -> DecisionRecord:
    """Raises NotFound, FailedPrecondition or PermissionDenied where the task would be refused for what it names."""
    if app:
        state.apps.get(app)
    model = state.catalog.get_active(state.apps.model_name(app, name))
    task = TaskRequest(
        task_id="",
        model=model.name,
        payload=b"",
        content_digest="",
        seed=0,
        priority=state.apps.priority_of(app, ""),
        app=app,
        prompt_tokens=prompt_tokens,
        overrides=overrides_of(state, wishes),
    )
    request = _load_request(state, model, lane_of(state, task), prompt_tokens, output_tokens)
    rank = state.config.priorities.index(task.priority)
    return _explain(state, replace(request, prompt_is_exact=True, rank=rank), task)


def explain_task(state: BrainState, task: Task) -> DecisionRecord:
    """Of one that has not ended. Its record has its id. Raises NotFound or FailedPrecondition as `explain`."""
    model = state.catalog.get_active(task.request.model)
    lane = lane_of_task(state, task)
    request = _load_request(state, model, lane, task.request.prompt_tokens, task.request.max_tokens or 0)
    return replace(_explain(state, request, task.request, task), task_id=task.task_id)


def _load_request(state: BrainState, model: Model, lane: Lane, prompt_tokens: int, output_tokens: int) -> LoadRequest:
    return LoadRequest(
        model=model,
        lane=lane,
        context=_context(state, model, lane, prompt_tokens),
        excluded_nodes=frozenset(state.refusals.get(model.name, ())),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        rank=rank_in(state, lane),
    )


def _explain(state: BrainState, request: LoadRequest, task: TaskRequest, waiting: Task | None = None) -> DecisionRecord:
    ahead = _ahead(state, task, waiting)
    there = _workers(state, request, task, ahead)
    elsewhere = place_load(state, request, details=True)
    if there.chosen is None:
        outcome, why = verdict(state, request, there, elsewhere, waiting)
        return record_of(state, _both(elsewhere, there, there.details), outcome, decision_id="", why=why)
    why = _held_back(state, task.app)
    is_free = state.fleet.workers[there.chosen.worker_id].takes_runs and not why
    if not (is_free or why):
        why = _behind(state, there.chosen, ahead, "" if waiting is None else waiting.task_id)
    outcome = Outcome.CHOSEN if is_free else Outcome.WAITS
    by_rules = _by_rules(elsewhere)
    return record_of(state, _both(there, by_rules, there.details), outcome, decision_id="", why=why)


def _held_back(state: BrainState, app: str) -> str:
    """Why no task of the app starts, whatever is free; empty where they do."""
    known = state.apps.find(app)
    if app not in state.queue.held or known is None:
        return ""
    return f"one of the tasks of app '{app}' to end: it may run {counted(known.max_concurrent_tasks, 'task')} at once"


def _ahead(state: BrainState, task: TaskRequest, waiting: Task | None) -> Backlog:
    """What gets slots before it."""
    if waiting is not None and waiting.task_id in state.queue:
        return state.queue.before(waiting.task_id)
    return state.queue.ahead(task.model, task.priority, task.app)


def _behind(state: BrainState, place: Candidate, ahead: Backlog, task_id: str) -> str:
    """The slot that it waits for, and for whom; empty where no task is before it, or its worker is still loading."""
    worker = state.fleet.workers[place.worker_id]
    if not ahead.tasks or worker.state is WorkerState.STARTING:
        return ""
    others = (state.tasks[head] for head in state.queue.heads(worker.spec.model) if head != task_id)
    first = next(others, None)
    return slot_behind(place, ahead.tasks, "" if first is None else first.request.app)


def _workers(state: BrainState, request: LoadRequest, task: TaskRequest, ahead: Backlog) -> Decision:
    """The workers that have the model or are loading it, with the time until they have a slot."""
    query = Query(state, request, rules_of(state.assignments, state.fleet, request.lane))
    serving = [worker for worker in state.fleet.workers_of_model(request.model.name) if worker.serves]
    is_held = task.app in state.queue.held
    start = None if is_held else prediction.predict_start(state, request.lane, task.priority, ahead)

    def wait(worker: Worker, own_ms: float) -> tuple[Term, ...]:
        """Where nothing better is known, the tasks before it are taken to be such as it is, and no shorter than what
        runs has been until now.
        """
        if worker.takes_runs and not is_held:
            return (NO_WAIT,)
        load = (_rest_of_load(state, worker),) if worker.state is WorkerState.STARTING else ()
        free = prediction.first_free(state, worker, task.priority)
        if start is not None and free is not None:
            return *load, Term("queue", max(start.mean, free.mean) - total_ms(load))
        rounds = ahead.tasks // worker.slots + (0 if load else 1)
        ran_ms = min((1000 * (state.now - state.attempts[one].began_at) for one in worker.attempts), default=0.0)
        return *load, Term("queue", max(own_ms, ran_ms) * rounds, is_guess=rounds > 0)

    return weigh(query, Tally(query, with_details=True), serving, task, wait)


def _rest_of_load(state: BrainState, worker: Worker) -> Term:
    """It takes as long again as it did, where it took longer than any guess."""
    if (free := prediction.first_free(state, worker, state.config.priorities[-1])) is not None:
        return Term("load", free.mean)
    passed_ms = (state.now - worker.asked_at) * 1000
    left_ms = load_term(state, worker.spec.model, worker.node_id).ms - passed_ms
    return Term("load", left_ms if left_ms > 0 else passed_ms, is_guess=True)


def _by_rules(decision: Decision) -> Decision:
    """With a worker there already, other places with room do not matter; but what the rules or a promise exclude is
    still shown.
    """
    names = {one.name for one in filters.ALWAYS_TOLD}
    return replace(
        decision,
        details=tuple(one for one in decision.details if one.filtered_by in names),
        removed={name: count for name, count in decision.removed.items() if name in names},
    )


def _both(decision: Decision, other: Decision, of_workers: tuple[Candidate, ...]) -> Decision:
    """The decision, and what else was looked at and removed. Each set of devices once: as a place that will do, else
    with why the worker that is there will not, else with why none could be loaded there.
    """
    names = {**decision.removed, **other.removed}
    told = {(one.node_id, frozenset(one.device_ids)) for one in decision.ranked}
    details = []
    for one in (*of_workers, *decision.details, *other.details):
        place = one.node_id, frozenset(one.device_ids)
        if place not in told:
            told.add(place)
            details.append(one)
    return replace(
        decision,
        details=tuple(details),
        considered=decision.considered + other.considered,
        removed={name: decision.removed.get(name, 0) + other.removed.get(name, 0) for name in names},
    )


def _context(state: BrainState, model: Model, lane: Lane, prompt_tokens: int) -> int:
    """Less than asked for, where nothing else would fit; the least that the prompt lets it be, where nothing fits."""
    looked = outlook(state, model, lane)
    if looked.plan is not None or looked.waits:
        return looked.plan.context if looked.plan else model.context
    return min(context for context in contexts_to_try(model) if context > prompt_tokens or context == model.context)
