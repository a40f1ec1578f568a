"""Sessions: they begin with a task, remember where they are warm, have budgets, and end when no task uses them."""

import pytest

from llorch.errors import NotFound, Reason, ResourceExhausted
from llorch.finish_reason import FinishReason
from orchestratord.core import effects, events
from orchestratord.core.facts.sessions import Budget, Session
from orchestratord.core.facts.task import ChoiceEnd, RunResult
from orchestratord.core.state import BrainConfig
from support.brain_driver import BrainDriver

pytestmark = pytest.mark.req("ORCH-1017")


@pytest.fixture
def driver() -> BrainDriver:
    driver = BrainDriver(BrainConfig(session_ttl_s=60))
    driver.add_model("coder", slots=2, context=2048)
    driver.add_node()
    driver.submit()
    driver.load()
    driver.finish_attempt(driver.only(effects.StartRun).attempt_id)
    driver.forget_effects()
    return driver


def turn(driver: BrainDriver, tokens_in: int = 50, tokens_out: int = 10, **options: object) -> str:
    task_id = driver.submit("coder", session_id="chat", **options)
    choices = (ChoiceEnd(0, FinishReason.EOS, tokens_out),)
    result = RunResult(choices, tokens_in=tokens_in, tokens_out=tokens_out, prefill_ms=100, decode_ms=900)
    driver.handle(events.AttemptEnded(driver.last(effects.StartRun).attempt_id, result))
    return task_id


def test_a_session_begins_with_a_task_and_adds_up_what_its_tasks_used(driver: BrainDriver) -> None:
    for _ in range(2):
        turn(driver)
    worker_id = next(iter(driver.state.fleet.workers))
    session = driver.state.sessions.get("", "chat")
    assert session == Session("", "chat", "coder", Budget(), 2, 120, 2000, worker_id, 60)
    assert driver.state.sessions.warm_tokens("", "chat", worker_id) == 60
    assert driver.state.sessions.warm_tokens("", "chat", "another") == 0
    kept = [effect.after for effect in driver.all_of(effects.PersistRecord) if isinstance(effect.after, Session)]
    assert kept[-1] == session


def test_sessions_of_two_apps_with_one_id_are_two(driver: BrainDriver) -> None:
    turn(driver, app="a")
    turn(driver, app="b")
    assert [(session.app, session.turns) for session in driver.state.sessions.all()] == [("a", 1), ("b", 1)]


def test_a_session_ends_when_its_time_is_over_and_not_while_it_is_used(driver: BrainDriver) -> None:
    turn(driver)
    driver.let_pass(59)
    driver.submit(session_id="chat")
    attempt_id = driver.last(effects.StartRun).attempt_id
    driver.let_pass(120)
    assert driver.state.sessions.find("", "chat"), "a task of it still runs"
    driver.finish_attempt(attempt_id)
    driver.let_pass(59)
    assert driver.state.sessions.find("", "chat")
    driver.forget_effects()
    driver.let_pass(2)
    assert driver.state.sessions.find("", "chat") is None
    assert driver.only(effects.PersistRecord).after is None


def test_a_cancelled_task_counts_with_what_it_used(driver: BrainDriver) -> None:
    task_id = driver.submit(session_id="chat")
    driver.handle(events.TaskCancelled(task_id))
    choices = (ChoiceEnd(0, FinishReason.CANCELLED, 4),)
    result = RunResult(choices, tokens_in=50, tokens_out=4)
    driver.handle(events.AttemptEnded(driver.last(effects.StartRun).attempt_id, result))
    session = driver.state.sessions.get("", "chat")
    assert (session.turns, session.tokens) == (1, 54)
    driver.let_pass(61)
    assert driver.state.sessions.find("", "chat") is None


@pytest.mark.parametrize(
    ("budget", "spent"),
    [
        (Budget(turns=2), "2 of its 2 turns"),
        (Budget(tokens=100), "120 of its 100 tokens"),
        (Budget(busy_ms=2000), "2000 of its 2000 ms of running"),
    ],
)
def test_a_budget_that_is_spent_refuses_with_what_was_spent(driver: BrainDriver, budget: Budget, spent: str) -> None:
    turn(driver, session_budget=budget)
    turn(driver)
    with pytest.raises(ResourceExhausted, match=spent) as refused:
        turn(driver)
    assert refused.value.reason is Reason.BUDGET_SPENT
    assert refused.value.retry_after_ms is None, "waiting does not help"
    turn(driver, session_budget=Budget(turns=10))
    assert driver.state.sessions.get("", "chat").budget == Budget(turns=10)


def test_a_refused_task_counts_no_turn(driver: BrainDriver) -> None:
    with pytest.raises(NotFound):
        driver.submit("nothing", session_id="chat")
    assert driver.state.sessions.find("", "chat") is None


def test_a_session_that_a_client_ended_begins_anew(driver: BrainDriver) -> None:
    turn(driver, session_budget=Budget(turns=1))
    driver.submit()
    driver.handle(events.SessionDeleted("", "chat"))
    with pytest.raises(NotFound) as refused:
        driver.handle(events.SessionDeleted("", "chat"))
    assert refused.value.reason is Reason.SESSION_NOT_FOUND
    turn(driver)
    assert driver.state.sessions.get("", "chat").turns == 1


def test_tasks_of_a_session_that_was_ended_go_on(driver: BrainDriver) -> None:
    task_id = driver.submit(session_id="chat")
    driver.handle(events.SessionDeleted("", "chat"))
    driver.finish_attempt(driver.last(effects.StartRun).attempt_id)
    assert driver.task(task_id).is_finished
    assert driver.state.sessions.find("", "chat") is None


def test_a_restored_session_has_its_whole_time_again() -> None:
    again = BrainDriver(BrainConfig(session_ttl_s=60))
    again.handle(events.RecordsFound((Session("", "chat", "coder", turns=3),)))
    assert again.state.sessions.get("", "chat").turns == 3
    again.advance(61)
    assert again.state.sessions.find("", "chat") is None


def test_the_next_turn_goes_where_the_session_is_warm(driver: BrainDriver) -> None:
    driver.handle(events.ModelLoadAsked("coder", "worker-second", anew=True))
    driver.load()
    other = driver.submit("coder", prompt_tokens=1000)
    busy = driver.last(effects.StartRun)
    turn(driver, prompt_tokens=1000, tokens_in=1000)
    warm_on = driver.last(effects.StartRun).worker_id
    assert warm_on != busy.worker_id, "the worker that has nothing to do is faster"
    driver.finish_attempt(busy.attempt_id)
    assert driver.task(other).is_finished
    for _ in range(2):
        turn(driver, prompt_tokens=2000, tokens_in=2000)
        assert driver.last(effects.StartRun).worker_id == warm_on
