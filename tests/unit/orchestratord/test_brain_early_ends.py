"""Tasks that end before their answer is whole: what they are told to have come to, and what is counted of them."""

from dataclasses import replace

import pytest

from llorch.errors import Reason
from llorch.finish_reason import FinishReason
from orchestratord.core import effects, events
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.sessions import Budget
from orchestratord.core.facts.task import ChoiceEnd, RunResult, Stopped, TaskEnd, TaskError, TaskState
from orchestratord.core.lives import attempt_loss
from orchestratord.core.lives.task_life import STOPS_WITHIN_S
from orchestratord.core.state import BrainConfig
from support.brain_driver import BrainDriver

TOKENS_IN, CACHED = 50, 20
PAID_BACK = 1000 * 0.5 / 60
"""Of the tokens a minute of `nightly`, until the first token."""


def running_brain(**options: object) -> tuple[BrainDriver, str, str]:
    """A task that has shown its first token; its id, and that of its attempt."""
    driver = BrainDriver(BrainConfig())
    driver.add_model("coder", slots=2)
    driver.add_node()
    driver.handle(events.AppDefined(App("nightly", max_tokens_per_minute=1000)))
    task_id = driver.submit(**options)  # type: ignore[arg-type]  # tests name fields
    driver.load()
    attempt_id = driver.only(effects.StartRun).attempt_id
    driver.handle(events.AttemptStarted(attempt_id, TOKENS_IN, CACHED))
    driver.now += 0.5
    driver.handle(events.AttemptFirstToken(attempt_id))
    driver.forget_effects()
    return driver, task_id, attempt_id


def result_of(*choices: ChoiceEnd) -> RunResult:
    tokens_out = sum(choice.tokens_out for choice in choices)
    return RunResult(choices, TOKENS_IN, tokens_out, CACHED, decode_ms=400, prefill_ms=100)


def used(driver: BrainDriver) -> tuple[int, int, int]:
    told = driver.only(effects.TokensUsed)
    return told.tokens_in, told.tokens_out, told.cached


@pytest.mark.req("ORCH-1006")
def test_the_end_of_a_cancelled_task_has_the_counts_of_its_worker() -> None:
    driver, task_id, attempt_id = running_brain()
    driver.handle(events.TaskCancelled(task_id))
    assert driver.task(task_id).state is TaskState.CANCELLED
    assert driver.only(effects.CancelRun).keeps_output, "what was made until then is shown and counted"
    assert not driver.all_of(effects.AppendTerminal)
    result = result_of(ChoiceEnd(0, FinishReason.CANCELLED, 7))
    driver.handle(events.AttemptEnded(attempt_id, result))
    assert driver.only(effects.AppendTerminal).terminal == TaskEnd(result, 0, 500)
    assert used(driver) == (TOKENS_IN, 7, CACHED)
    driver.advance(2 * STOPS_WITHIN_S)
    assert len(driver.all_of(effects.AppendTerminal)) == 1


def test_a_deadline_is_named_as_the_reason_of_the_choices_that_it_cut() -> None:
    driver, task_id, attempt_id = running_brain(deadline_s=10.0, choices=2)
    driver.advance(10)
    assert driver.task(task_id).state is TaskState.EXPIRED
    stop_string, cut = ChoiceEnd(0, FinishReason.EOS, 3), ChoiceEnd(1, FinishReason.CANCELLED, 5)
    driver.handle(events.AttemptEnded(attempt_id, result_of(stop_string, cut)))
    terminal = driver.only(effects.AppendTerminal).terminal
    assert isinstance(terminal, TaskEnd)
    assert terminal.result.choices == (stop_string, ChoiceEnd(1, FinishReason.DEADLINE, 5))


def test_a_worker_that_does_not_stop_is_not_waited_for_long() -> None:
    driver, task_id, attempt_id = running_brain()
    driver.handle(events.TaskCancelled(task_id))
    driver.advance(STOPS_WITHIN_S - 0.25)
    assert not driver.all_of(effects.AppendTerminal)
    driver.advance(0.25)
    ended = Stopped(FinishReason.CANCELLED, 0, 500, TOKENS_IN, CACHED, round(STOPS_WITHIN_S * 1000))
    assert driver.only(effects.AppendTerminal).terminal == ended
    driver.handle(events.AttemptEnded(attempt_id, result_of(ChoiceEnd(0, FinishReason.CANCELLED, 9))))
    assert len(driver.all_of(effects.AppendTerminal)) == 1
    assert used(driver) == (TOKENS_IN, 9, CACHED), "what it used all the same is counted"


@pytest.mark.parametrize("is_durable", [False, True])
def test_a_worker_that_dies_while_it_is_to_stop_ends_the_task_with_what_is_known(is_durable: bool) -> None:
    driver, task_id, attempt_id = running_brain(durable=is_durable)
    spec = next(iter(driver.state.fleet.workers.values())).spec
    driver.handle(events.TaskCancelled(task_id))
    driver.worker_ended(spec)
    given: effects.PersistTerminal | effects.AppendTerminal
    given = driver.only(effects.PersistTerminal) if is_durable else driver.only(effects.AppendTerminal)
    assert given.terminal == Stopped(FinishReason.CANCELLED, 0, 500, TOKENS_IN, CACHED, 0)
    assert driver.task(task_id).state is TaskState.CANCELLED
    driver.handle(events.LostOutputCounted(attempt_id, 4))
    assert used(driver) == (TOKENS_IN, 4, CACHED)


@pytest.mark.req("ORCH-1009")
@pytest.mark.parametrize("final", [TaskState.CANCELLED, TaskState.EXPIRED])
def test_that_a_durable_task_was_ended_early_is_kept_at_once_and_shown_with_its_counts(final: TaskState) -> None:
    driver, task_id, attempt_id = running_brain(durable=True, deadline_s=10.0)
    if final is TaskState.CANCELLED:
        driver.handle(events.TaskCancelled(task_id))
    else:
        driver.advance(10)
    reason = FinishReason.CANCELLED if final is TaskState.CANCELLED else FinishReason.DEADLINE
    so_far = driver.only(effects.PersistStop).so_far
    assert isinstance(so_far, Stopped)
    assert (driver.task(task_id).state, so_far.finish_reason, so_far.tokens_in) == (final, reason, TOKENS_IN)
    assert not driver.all_of(effects.PersistTerminal)
    driver.handle(events.AttemptEnded(attempt_id, result_of(ChoiceEnd(0, FinishReason.CANCELLED, 7))))
    terminal = driver.only(effects.PersistTerminal).terminal
    assert terminal == TaskEnd(result_of(ChoiceEnd(0, reason, 7)), 0, 500)
    assert not driver.all_of(effects.AppendTerminal)
    driver.handle(events.TerminalPersisted(task_id))
    assert driver.only(effects.AppendTerminal).terminal == terminal
    driver.advance(2 * STOPS_WITHIN_S)
    assert len(driver.all_of(effects.PersistTerminal)) == len(driver.all_of(effects.PersistStop)) == 1


def test_at_the_end_of_the_orchestrator_no_worker_is_waited_for() -> None:
    driver, task_id, attempt_id = running_brain(durable=True)
    other = driver.submit(durable=True)
    driver.handle(events.TaskCancelled(task_id))
    driver.handle(events.StopsCutShort())
    given = driver.only(effects.PersistTerminal)
    assert given == effects.PersistTerminal(task_id, Stopped(FinishReason.CANCELLED, 0, 500, TOKENS_IN, CACHED, 0))
    driver.handle(events.AttemptEnded(attempt_id, result_of(ChoiceEnd(0, FinishReason.CANCELLED, 7))))
    driver.handle(events.TerminalPersisted(task_id))
    driver.handle(events.StopsCutShort())
    assert driver.only(effects.AppendTerminal).task_id == task_id
    assert driver.task(other).state is TaskState.RUNNING


def test_a_run_that_fails_while_it_is_to_stop_is_stopped_all_the_same() -> None:
    driver, task_id, attempt_id = running_brain()
    driver.handle(events.TaskCancelled(task_id))
    driver.handle(events.AttemptEnded(attempt_id, TaskError(Reason.ENGINE_FAILED, "no"), result_of()))
    assert isinstance(driver.only(effects.AppendTerminal).terminal, Stopped)
    assert driver.task(task_id).state is TaskState.CANCELLED


def test_a_first_token_that_comes_while_the_task_is_to_stop_has_its_time() -> None:
    driver, task_id, attempt_id = running_brain()
    task = driver.task(task_id)
    task.first_token_at = None
    driver.handle(events.TaskCancelled(task_id))
    driver.now += 0.25
    driver.handle(events.AttemptFirstToken(attempt_id))
    driver.handle(events.AttemptEnded(attempt_id, result_of(ChoiceEnd(0, FinishReason.CANCELLED, 1))))
    terminal = driver.only(effects.AppendTerminal).terminal
    assert isinstance(terminal, TaskEnd)
    assert terminal.first_token_ms == 750


def test_what_a_failed_run_used_is_counted() -> None:
    driver, task_id, attempt_id = running_brain(session_id="chat", app="nightly")
    failed = TaskError(Reason.ENGINE_FAILED, "no")
    driver.handle(events.AttemptEnded(attempt_id, failed, RunResult((), TOKENS_IN, 30, CACHED, decode_ms=400)))
    assert driver.task(task_id).terminal == failed
    assert used(driver) == (TOKENS_IN, 30, CACHED)
    session = driver.state.sessions.get("nightly", "chat")
    assert (session.tokens, session.busy_ms, session.warm_tokens) == (80, 400, 0)
    assert driver.state.apps.usage("nightly").debt == pytest.approx(80 - PAID_BACK)


def test_what_was_shown_of_a_lost_attempt_is_counted() -> None:
    driver, task_id, attempt_id = running_brain(session_id="chat", app="nightly", session_budget=Budget(tokens=60))
    spec = next(iter(driver.state.fleet.workers.values())).spec
    driver.worker_ended(spec)
    assert driver.only(effects.CountLostOutput).attempt_id == attempt_id
    assert not driver.all_of(effects.TokensUsed)
    driver.handle(events.LostOutputCounted(attempt_id, 12))
    driver.handle(events.LostOutputCounted(attempt_id, 12))
    assert used(driver) == (TOKENS_IN, 12, CACHED)
    session = driver.state.sessions.get("nightly", "chat")
    assert (session.tokens, session.worker_id, session.warm_tokens) == (62, "", 0)
    assert driver.state.apps.usage("nightly").debt == pytest.approx(62 - PAID_BACK)
    assert not driver.state.lost_attempts
    assert driver.task(task_id).state is TaskState.QUEUED


def test_a_lost_attempt_of_a_task_that_is_forgotten_counts_with_its_prompt() -> None:
    driver, task_id, attempt_id = running_brain(app="daily")
    spec = next(iter(driver.state.fleet.workers.values())).spec
    driver.handle(events.TaskCancelled(task_id))
    driver.let_pass(STOPS_WITHIN_S + driver.config.task_retention_s + 1)
    assert task_id not in driver.state.tasks
    driver.handle(events.AppDefined(App("daily", max_tokens_per_minute=1)))
    usage = driver.state.apps.usage("daily")
    usage.use(1000, 1, driver.now)
    charged = driver.state.attempts[attempt_id].charged
    driver.worker_ended(spec)
    assert not driver.all_of(effects.CountLostOutput)
    assert used(driver) == (TOKENS_IN, 0, CACHED)
    assert usage.debt == 1000 + TOKENS_IN - charged, "settled once"
    assert not driver.state.lost_attempts


def test_a_task_that_waits_to_go_on_elsewhere_is_ended_with_what_was_shown_of_it() -> None:
    driver, task_id, _ = running_brain()
    worker = next(iter(driver.state.fleet.workers.values()))
    assert worker.engine is not None
    worker.engine = replace(worker.engine, resumes=True)
    attempt_loss.move(driver.state, driver.task(task_id), "a test")
    driver.now += 2
    driver.handle(events.TaskCancelled(task_id))
    assert driver.only(effects.AppendTerminal).terminal == Stopped(
        FinishReason.CANCELLED, 0, 500, TOKENS_IN, CACHED, 2000
    )


def test_a_run_that_its_worker_refused_has_used_nothing() -> None:
    driver = BrainDriver()
    driver.add_model("coder")
    driver.add_node()
    driver.handle(events.AppDefined(App("nightly", max_tokens_per_minute=1000)))
    driver.submit(session_id="chat", app="nightly", prompt_tokens=500)
    driver.load()
    attempt_id = driver.only(effects.StartRun).attempt_id
    assert driver.state.apps.usage("nightly").debt >= 500
    driver.handle(events.AttemptEnded(attempt_id, TaskError(Reason.PROMPT_TOO_LONG, "too long")))
    assert driver.state.apps.usage("nightly").debt == 0
    assert driver.state.sessions.get("nightly", "chat").tokens == 0


@pytest.mark.parametrize(
    ("result", "warm_tokens"),
    [
        (RunResult((ChoiceEnd(0, FinishReason.EOS, 8), ChoiceEnd(1, FinishReason.EOS, 5)), 50, 13, 20), 58),
        (RunResult((ChoiceEnd(0, FinishReason.CANCELLED, 0),), 50, 0, 20), 20),
        (RunResult((), 50, 0, 0), 33),
    ],
    ids=["one-answer-goes-on", "cancelled-in-its-prompt", "vectors-leave-nothing"],
)
def test_a_session_says_what_its_last_run_left_in_the_cache(result: RunResult, warm_tokens: int) -> None:
    driver, _, attempt_id = running_brain(session_id="chat")
    driver.handle(events.AttemptEnded(attempt_id, RunResult((ChoiceEnd(0, FinishReason.EOS, 3),), 30, 3)))
    driver.submit(session_id="chat")
    driver.handle(events.AttemptEnded(driver.last(effects.StartRun).attempt_id, result))
    assert driver.state.sessions.get("", "chat").warm_tokens == warm_tokens
