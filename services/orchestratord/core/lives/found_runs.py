"""After a start of the orchestrator: runs of before are found on the workers, and their tasks go on.

For as long as some may still be found, tasks of before do not begin anew, and no task is said not to be there.
"""

from llorch.errors import Reason
from orchestratord.core.effects import AdoptRun, AnnouncePlacement, BeginAnew, Narrate, OpenFoundLog, ReleaseRuns
from orchestratord.core.events import RunsFound
from orchestratord.core.facts.admission import Waiting
from orchestratord.core.facts.attempt import Attempt
from orchestratord.core.facts.fleet import NodeState, Worker
from orchestratord.core.facts.found_run import FoundRun, TaskRecord
from orchestratord.core.facts.task import Task, TaskError, TaskState
from orchestratord.core.facts.timers import TimerKind
from orchestratord.core.facts.work import Work
from orchestratord.core.lives import app_changes, deadlines, forgetting, task_dispatch, task_life, task_submission
from orchestratord.core.placement import prediction, shares
from orchestratord.core.state import BrainState


def lose_sight(state: BrainState) -> None:
    """The orchestrator has started: it is not known yet what runs, if it had nodes before."""
    if not state.fleet.nodes:
        return
    state.lost_sight_until = state.now + state.config.runs_found_within_s
    state.timers.at(state.lost_sight_until, TimerKind.RUNS_FOUND, "")


def restored(state: BrainState, task: Task) -> None:
    """It was accepted before the start and has not ended. It may run."""
    if state.lost_sight_until is None:
        state.emit(BeginAnew(task.task_id))
        return
    state.lost_sight[task.task_id] = None
    state.emit(Narrate(task.task_id, "the orchestrator was started again, and looks whether the task still runs"))


def runs_found(state: BrainState, event: RunsFound) -> None:
    """Runs that are in no table here and belong to no task that goes on are released."""
    worker = state.fleet.workers.get(event.worker_id)
    unknown = []
    for run in event.runs:
        if run.attempt_id in state.attempts or _is_needed(state, run):
            continue
        if worker is None or run.record is None or not _take_up(state, worker, run, run.record):
            unknown.append(run.attempt_id)
    if unknown:
        state.emit(ReleaseRuns(event.worker_id, tuple(unknown)))
    if worker is not None:
        worker.runs_known = True
    look_whether_all_told(state)


def _is_needed(state: BrainState, run: FoundRun) -> bool:
    """It has ended, and what it came to is not kept yet."""
    task = state.tasks.get(run.record.request.task_id) if run.record is not None else None
    return task is not None and task.attempt is not None and task.attempt.attempt_id == run.attempt_id


def look_whether_all_told(state: BrainState) -> None:
    if state.lost_sight_until is not None and _have_all_told(state):
        time_over(state, "")


def time_over(state: BrainState, _: str) -> None:
    """What was not found does not run any more, as far as can be told: it begins anew."""
    state.lost_sight_until = None
    state.timers.cancel("", TimerKind.RUNS_FOUND)
    lost, state.lost_sight = state.lost_sight, {}
    for task_id in lost:
        task = state.tasks.get(task_id)
        if task is not None and task.stopping is not None:
            task_life.end_stop(state, task)
        elif task is not None and not task.is_finished:
            state.queue.answered(task_id)
            deadlines.watch_deadline(state, task)
            state.emit(BeginAnew(task_id))
            fail_without_model(state, task)
    state.look_again = True


def _have_all_told(state: BrainState) -> bool:
    """Every node that was known has come back, and its workers have told their runs."""
    nodes = state.fleet.nodes.values()
    if not nodes or any(node.state is NodeState.AWAITED for node in nodes):
        return False
    return all(worker.runs_known or worker.engine is None for worker in state.fleet.workers.values())


def _take_up(state: BrainState, worker: Worker, run: FoundRun, record: TaskRecord) -> bool:
    """Whether its task goes on there. Of several runs of one task, the first that is found does."""
    if state.lost_sight_until is None:
        return False
    task_id = record.request.task_id
    task = state.tasks.get(task_id) or _task_of_before(state, record)
    if task is None or task_id not in state.lost_sight or (task.is_finished and task.stopping is None):
        if task is not None:
            task.attempts = max(task.attempts, run.number)  # readers were told of it
        return False
    if task.promise is None and record.promise is not None:  # the store did not take it in time
        task_dispatch.set_promise(state, task, record.promise)
    state.queue.answered(task_id)
    if (place := state.lost_sight.pop(task_id)) is not None:
        charged_s = _used_s(state, worker, run)
        state.queue.run_begins(place, charged_s)
        _adopt(state, worker, run, task, place, charged_s, charged=0)
        task_life.stop_run(state, task)
    else:
        _go_on(state, worker, run, task)
    return True


def _task_of_before(state: BrainState, record: TaskRecord) -> Task | None:
    """One that the store does not have, since it was not to outlive its reader, who may come back."""
    request = record.request
    repeated = (request.app, request.request_id) in state.by_request_id and request.request_id != ""
    if request.durable or request.work is not Work.GENERATE or repeated or request.task_id in state.forgotten:
        return None
    if not state.catalog.has(request.model) or request.priority not in state.config.priorities:
        return None
    age_s = max(0.0, (state.ms_now - record.accepted_at_ms) / 1000)
    task = Task(request, created_at=state.now - age_s, promise=record.promise)
    state.tasks[task.task_id] = task
    if request.request_id:
        state.by_request_id[request.app, request.request_id] = task.task_id
    task_submission.readmit(state, task, held=True)
    state.emit(OpenFoundLog(request, record.accepted_at_ms))
    # Its reader may have been told to ask again until the end of the search.
    asked_again_by = state.now + state.config.runs_found_within_s + state.config.disconnect_grace_s
    task_life.begin_reader_grace(state, task, at_least_until=asked_again_by)
    state.lost_sight[task.task_id] = None
    return task


def _go_on(state: BrainState, worker: Worker, run: FoundRun, task: Task) -> None:
    charged = prediction.expected_tokens(state, task.request)
    charged_s = _used_s(state, worker, run)
    place = state.queue.take(task.task_id, charged_s)
    forgetting.wait_over(state, place)
    task.end_wait()
    task.move_to(TaskState.RUNNING)
    _adopt(state, worker, run, task, place, charged_s, charged)
    deadlines.watch_deadline(state, task)
    state.emit(
        AnnouncePlacement(task.task_id, task_dispatch.placement_of(state, worker, run.number)),
        Narrate(task.task_id, "the orchestrator was started again; the task has gone on meanwhile"),
    )


def _used_s(state: BrainState, worker: Worker, run: FoundRun) -> float:
    """Device-seconds, until now."""
    return shares.of_run(state, worker) * run.age_s


def _adopt(
    state: BrainState, worker: Worker, run: FoundRun, task: Task, place: Waiting, charged_s: float, charged: int
) -> None:
    task.attempts = max(task.attempts, run.number)
    task.started_at = max(task.created_at, state.now - run.age_s)
    if run.entries:
        task.first_token_at = max(task.started_at, state.now - run.output_age_s)
    attempt = Attempt(
        attempt_id=run.attempt_id,
        number=run.number,
        task_id=task.task_id,
        worker_id=worker.worker_id,
        place=place,
        charged=charged,
        share=shares.of_run(state, worker),
        charged_s=charged_s,
        began_at=task.started_at,
        batch=len(worker.attempts) + 1,
        session_id=task.request.session_id,
        resumes=worker.engine is not None and worker.engine.resumes,
        has_output=run.entries > 0,
    )
    app_changes.attempt_began(state, attempt)
    task.attempt = state.attempts[attempt.attempt_id] = attempt
    worker.attempts.add(attempt.attempt_id)
    worker.last_class = state.config.priorities.index(place.priority)
    state.emit(AdoptRun(worker.worker_id, run.attempt_id, task.task_id, run.log_epoch, run.entries))


def fail_without_model(state: BrainState, task: Task) -> None:
    if state.catalog.find(task.request.model) is None and state.now >= state.recovering_until:
        error = TaskError(Reason.MODEL_NOT_FOUND, nowhere(task.request.model))
        task_life.finish(state, task, TaskState.FAILED, error)


def nowhere(name: str) -> str:
    return (
        f"model '{name}' is not in the catalog any more: the task was accepted before the orchestrator restarted, and "
        "no node has offered the model since; add it with `llorch models add`, and send the request again"
    )
