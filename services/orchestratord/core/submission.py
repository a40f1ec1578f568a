"""Tasks come in: admit, or refuse with the reason and nothing changed."""

from llorch.errors import AlreadyExists, FailedPrecondition, Reason, Unavailable, invalid_field
from orchestratord.core import dispatch, ending, loading
from orchestratord.core.catalog import Model
from orchestratord.core.effects import Narrate, OpenLog, PersistTask
from orchestratord.core.events import TaskSubmitted
from orchestratord.core.memory_estimate import estimate_mib
from orchestratord.core.placement import place
from orchestratord.core.state import BrainState
from orchestratord.core.task import Task, TaskError, TaskRequest, TaskState
from orchestratord.core.timers import TimerKind


def submit(state: BrainState, event: TaskSubmitted) -> None:
    """Admit a task. A repeated `request_id` with the same content is the task that exists; nothing happens again."""
    request = event.request
    if find_repeated(state, request) is not None:
        return
    model = state.catalog.get_active(request.model)
    if request.priority not in state.config.priorities:
        raise invalid_field("priority", f"'{request.priority}' is none of: {', '.join(state.config.priorities)}")
    _refuse_if_hopeless(state, model)
    _make_room(state, request.priority)
    _admit(state, request, model)


def find_repeated(state: BrainState, request: TaskRequest) -> Task | None:
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


def _make_room(state: BrainState, priority: str) -> None:
    victim = state.queue.make_room(priority)
    if victim is None:
        return
    task = state.tasks[victim]
    message = (
        f"the queue was full and this task had waited longest in priority '{task.request.priority}'; submit it again "
        "later, or with a higher priority"
    )
    dropped = TaskError(Reason.DROPPED_FROM_QUEUE, message, retryable=True)
    ending.finish(state, task, TaskState.FAILED, dropped)


def _admit(state: BrainState, request: TaskRequest, model: Model) -> None:
    task = Task(request, created_at=state.now)
    position = state.queue.ahead(model.name, request.priority)
    state.tasks[task.task_id] = task
    if request.request_id:
        state.by_request_id[(request.app, request.request_id)] = task.task_id
    state.queue.add(task.task_id, model.name, request.priority)
    if request.deadline_s is not None:
        state.timers.at(state.now + request.deadline_s, TimerKind.DEADLINE, task.task_id)
    if not request.durable:
        ending.begin_reader_grace(state, task)
    state.emit(OpenLog(request, position))
    if request.durable:
        state.emit(PersistTask(request))
    if model.name not in state.loads:
        state.refusals.pop(model.name, None)
    dispatch.dispatch_model(state, model.name)
    if task.task_id in state.queue and (sentence := loading.describe_load(state, model.name)):
        state.emit(Narrate(task.task_id, sentence))
    loading.ensure_loaded(state, model.name)


def _refuse_if_hopeless(state: BrainState, model: Model) -> None:
    """A task that can never run does not wait: there is nothing to run it on, or no device could hold the model."""
    if not state.fleet.nodes:
        raise Unavailable(
            Reason.NO_DEVICE,
            "no GPU host is connected; start pool-managerd there and point it at this orchestrator",
            retry_after_ms=1000,
        )
    if not any(device.usable for node in state.fleet.nodes.values() for device in node.devices.values()):
        raise Unavailable(
            Reason.NO_DEVICE,
            "no GPU host that is connected has a device that can be used; see `llorch gpus`",
            retry_after_ms=1000,
        )
    size = model.size_mib
    if size is None or any(True for _ in state.fleet.workers_of_model(model.name)) or not state.fleet.ready_nodes():
        return
    decision = place(state.fleet, state.ledger, estimate_mib(model, size))
    if decision.chosen is None and not decision.waits and decision.has_usable:
        raise FailedPrecondition(Reason.MODEL_FITS_NO_DEVICE, loading.fits_nowhere(model, decision))
