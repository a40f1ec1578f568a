"""Learns from finished work, and compares it with what was predicted."""

from llorch.finish_reason import FinishReason
from orchestratord.core.effects import OnTimeJudged, PersistRecord, PredictionJudged
from orchestratord.core.facts.attempt import Attempt
from orchestratord.core.facts.fleet import Worker
from orchestratord.core.facts.task import RunResult, Task, TaskState
from orchestratord.core.learnt.answer_lengths import Answer
from orchestratord.core.learnt.rates import Rate, Run
from orchestratord.core.lives import forgetting
from orchestratord.core.placement.prediction import device_of
from orchestratord.core.state import BrainState

_CUT_SHORT = frozenset({FinishReason.CANCELLED, FinishReason.DEADLINE})


def run_ended(state: BrainState, attempt: Attempt, task: Task | None, result: RunResult) -> None:
    """A worker has reported the result of a run, perhaps of a task that has ended already."""
    worker = state.fleet.workers.get(attempt.worker_id)
    if task is None or worker is None:
        return
    if not state.catalog.has(attempt.place.model) or attempt.gives_way is not None:
        return
    state.rates.held(attempt.place.model, (state.now - attempt.began_at) * 1000)
    reasons = {choice.finish_reason for choice in result.choices}
    if not reasons & _CUT_SHORT:
        state.rates.ran(_run(state, attempt, task, worker, result, was_cut=FinishReason.LENGTH in reasons))
    elif result.tokens_out and (app := _who_learns(state, attempt)) is not None:
        tokens = result.tokens_out // len(result.choices)
        state.rates.answers.came(app, attempt.place.model, Answer(tokens, was_cut=True))
    _keep(state)


def worker_loaded(state: BrainState, worker: Worker, size_mib: int | None, took_ms: float) -> None:
    if state.catalog.has(worker.spec.model):
        state.rates.loaded(worker.spec.model, worker.node_id, size_mib, took_ms)
        _keep(state)


def restore_rate(state: BrainState, record: Rate) -> None:
    state.rates.restore(record)


def judge_start(state: BrainState, task: Task) -> None:
    """The task's first attempt begins. For a task that did not have to wait there was nothing to predict."""
    if task.attempts == 1 and task.predicted_start_ms is not None:
        waited_ms = (state.now - task.created_at) * 1000
        state.emit(PredictionJudged("start", task.predicted_start_ms, waited_ms))


def judge_end(state: BrainState, task: Task) -> None:
    """Only for tasks that were done, or that reached their deadline: others say nothing about time."""
    if task.on_time is not None and task.state in (TaskState.COMPLETED, TaskState.EXPIRED):
        met = task.state is TaskState.COMPLETED
        if task.on_time_forecast is not None:
            state.rates.on_time.came(task.on_time_forecast, met)
        state.emit(OnTimeJudged(task.on_time, met))


def _keep(state: BrainState) -> None:
    for rate in state.rates.take_to_keep():
        state.emit(PersistRecord(None, rate))
    forgetting.rates_forgotten(state)


def _who_learns(state: BrainState, attempt: Attempt) -> str | None:
    """The app of which the answer says how long its answers become. One that fills its limit says nothing of others."""
    place = attempt.place
    return None if place.work.fills_limit or not state.apps.has(place.app) else place.app


def _run(state: BrainState, attempt: Attempt, task: Task, worker: Worker, result: RunResult, *, was_cut: bool) -> Run:
    return Run(
        app=_who_learns(state, attempt),
        model=attempt.place.model,
        device=device_of(state, worker),
        batch=(attempt.batch + len(worker.attempts) + 1) // 2,
        prompt_tokens_guessed=task.request.prompt_tokens,
        tokens_in=result.tokens_in,
        cached_tokens=result.cached_tokens,
        tokens_out=result.tokens_out,
        choices=max(1, len(result.choices)),
        was_cut=was_cut,
        prefill_ms=result.prefill_ms,
        decode_ms=result.decode_ms,
    )
