"""Tasks come in: admit, or refuse with the reason and nothing changed."""

from collections.abc import Sequence
from dataclasses import replace

from llorch.errors import AlreadyExists, InvalidArgument, Reason, invalid_field
from orchestratord.core.effects import Narrate, OpenLog, PersistTask, StartPredicted
from orchestratord.core.events import TaskKept, TaskSubmitted
from orchestratord.core.facts.backlog import Backlog
from orchestratord.core.facts.model import Model
from orchestratord.core.facts.rules import Lane
from orchestratord.core.facts.task import Task, TaskError, TaskRequest, TaskState
from orchestratord.core.facts.warmth import PromptHead
from orchestratord.core.facts.work import Work, refusal_of
from orchestratord.core.learnt.estimates import Estimate
from orchestratord.core.lives import app_changes, deadlines, model_loading, session_life, task_dispatch, task_life
from orchestratord.core.placement import availability, prediction
from orchestratord.core.placement.availability import Wait
from orchestratord.core.placement.lanes import lane_of, lane_of_task, overrides_of
from orchestratord.core.placement.load_progress import describe_load
from orchestratord.core.placement.newcomer import Newcomer
from orchestratord.core.state import BrainState


def submit(state: BrainState, event: TaskSubmitted) -> Task:
    """Admit a task. A repeated `request_id` with the same content is the task that exists; nothing happens again."""
    if (repeated := _find_repeated(state, event.request)) is not None:
        return repeated
    model = state.catalog.get_active(state.apps.model_name(event.request.app, event.request.model))
    request = replace(
        event.request,
        model=model.name,
        priority=_priority_of(state, event.request),
        overrides=overrides_of(state, event.request.wishes),
    )
    if not request.durable:
        task_life.refuse_too_many_readers(state)
    _refuse_other_work(model, request.work)
    _refuse_if_too_long(model, request)
    app_changes.refuse_if_used_up(state, request.app)
    session_life.refuse_if_spent(state, request)
    lane = lane_of(state, request)
    wait = availability.refuse_if_hopeless(state, model, lane)
    newcomer = Newcomer(state, request, lane)
    victims = state.queue.make_room(request.priority, request.waiting_bytes, request.app, newcomer)
    if not request.durable:  # for a durable one they go when that is kept
        _drop(state, victims)
    return _admit(state, request, event.head, lane, wait)


def kept(state: BrainState, event: TaskKept) -> None:
    """The task can't be refused any more: it may start, others give way for it, and its model is loaded."""
    state.queue.answered(event.task_id)
    task = state.tasks.get(event.task_id)
    if task is None:
        return
    predicted, task.predicted_start_ms = task.predicted_start_ms, None  # one that starts now has waited for no slot
    task_dispatch.dispatch_model(state, task.request.model)
    task.predicted_start_ms = predicted
    if event.task_id in state.queue:
        _drop(state, state.queue.too_many(event.task_id))
    _note_demand(state, task.request.model)
    model_loading.ensure_loaded(state, task.request.model)
    if event.task_id in state.queue and task.predicted_start_ms is None:
        _predict(state, task, state.queue.before(event.task_id))
        if task.predicted_start_ms is not None:
            state.emit(StartPredicted(task.task_id, task.predicted_start_ms))


def readmit(state: BrainState, task: Task, *, held: bool) -> None:
    """A task that was admitted before waits again, at the end of the queue and whether there is room or not. One that
    is held does not start until the queue has an answer for it.

    It was accepted, so it does not matter whether its model is retired by now.
    """
    request = task.request
    session_life.turn_goes_on(state, request)
    state.queue.add(
        task.task_id,
        request.model,
        request.priority,
        app=request.app,
        lane=lane_of_task(state, task),
        unkept=held,
        due_at=task.due_at,
        size=request.waiting_bytes,
        work=request.size,
    )
    deadlines.watch_deadline(state, task)


def _find_repeated(state: BrainState, request: TaskRequest) -> Task | None:
    """The task that this request already is, if its `request_id` was used; with other content it is refused."""
    if not request.request_id:
        return None
    task_id = state.by_request_id.get((request.app, request.request_id))
    if task_id is None:
        return None
    task = state.tasks[task_id]
    if task.request.content_digest != request.content_digest:
        raise AlreadyExists(
            Reason.REQUEST_ID_REUSED,
            f"request_id '{request.request_id}' belongs to another request; use a new one for a new request",
        )
    return task


def _drop(state: BrainState, victims: Sequence[str]) -> None:
    for victim in victims:
        task = state.tasks[victim]
        message = (
            "the queue was full, and of the app with most of it this task had waited longest in priority "
            f"'{task.request.priority}'; submit it again later, or with a higher priority"
        )
        dropped = TaskError(Reason.DROPPED_FROM_QUEUE, message)
        task_life.finish(state, task, TaskState.FAILED, dropped)


def _admit(state: BrainState, request: TaskRequest, head: PromptHead, lane: Lane, wait: Wait | None) -> Task:
    task = Task(request, created_at=state.now)
    ahead = state.queue.ahead(request.model, request.priority, request.app, task.due_at)
    state.tasks[task.task_id] = task
    if request.request_id:
        state.by_request_id[(request.app, request.request_id)] = task.task_id
    state.queue.add(
        task.task_id,
        request.model,
        request.priority,
        app=request.app,
        lane=lane,
        unkept=request.durable,
        due_at=task.due_at,
        size=request.waiting_bytes,
        work=request.size,
    )
    session_life.turn_begins(state, request)
    state.warmth.task_came(task.task_id, head)
    deadlines.watch_deadline(state, task)
    if not request.durable:
        task_life.begin_reader_grace(state, task)
    _start_or_wait(state, task, ahead, wait)
    deadlines.watch_latest_start(state, task)
    return task


def _start_or_wait(state: BrainState, task: Task, ahead: Backlog, wait: Wait | None) -> None:
    """The log opens before anything is written to it; its first entry is known only when all the rest is. `wait` is
    what the task waits for, where it has no place now.
    """
    request = task.request
    begin = len(state.outbox)
    if request.durable:
        state.emit(PersistTask(request))
    else:
        _note_demand(state, request.model)
    task_dispatch.dispatch_model(state, request.model)
    if task.task_id in state.queue and (sentence := describe_load(state, request.model)):
        state.emit(Narrate(task.task_id, sentence))
    model_loading.ensure_loaded(state, request.model)
    if task.task_id in state.queue and wait is not None:
        model_loading.tell_wait(state, task, wait)
    _predict(state, task, ahead)
    state.outbox.insert(begin, OpenLog(request, ahead.tasks, task.predicted_start_ms))


def _note_demand(state: BrainState, model: str) -> None:
    """The model is asked for: nodes that refused to load it are asked again."""
    if not state.catalog.has(model):  # it was deleted while the task was written
        return
    state.demand.note(model)
    if model not in state.loads:
        state.refusals.pop(model, None)


def _predict(state: BrainState, task: Task, ahead: Backlog) -> None:
    """When it will start, and whether it will be done in time; left open where that is not known."""
    start: Estimate | None = prediction.AT_ONCE
    if task.task_id in state.queue:
        start = prediction.predict_start_of(state, task, lane_of_task(state, task), ahead)
    if start is not None and not task.is_finished:
        task.predicted_start_ms = round(start.mean)
        task.on_time_forecast = prediction.on_time_forecast(state, task, start)
        task.on_time = None if task.on_time_forecast is None else state.rates.on_time.corrected(task.on_time_forecast)


def _priority_of(state: BrainState, request: TaskRequest) -> str:
    priority = state.apps.priority_of(request.app, request.priority)
    if priority not in state.config.priorities:
        raise invalid_field("priority", f"'{priority}' is none of: {', '.join(state.config.priorities)}")
    return priority


def _refuse_other_work(model: Model, work: Work) -> None:
    """Before a model is loaded for what it was not trained for."""
    if message := refusal_of(model.name, model.facts, work):
        raise InvalidArgument(Reason.UNSUPPORTED_OPTION, message, metadata={"field": str(work), "model": model.name})


def _refuse_if_too_long(model: Model, request: TaskRequest) -> None:
    """Refuses where the answer alone would not fit. Whether the prompt does, the worker checks: it can count tokens."""
    if request.max_tokens is not None and request.max_tokens > model.context:
        raise InvalidArgument(
            Reason.CONTEXT_TOO_LONG,
            f"max_tokens: {request.max_tokens} tokens do not fit into the {model.context} tokens that a "
            f"request of model '{model.name}' may use; ask for less, or raise the model's context",
            metadata={"model": model.name},
        )
