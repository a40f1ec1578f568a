"""The record of a decision says what the task asked for that was placed; to apps, of their own tasks alone."""

import pytest

from llorch.finish_reason import FinishReason
from orchestratord.core import effects, events
from orchestratord.core.facts.decision import Asked, DecisionRecord, Outcome
from orchestratord.core.facts.task import ChoiceEnd, RunResult
from orchestratord.views import decisions
from support.brain_driver import BrainDriver


@pytest.fixture
def driver() -> BrainDriver:
    driver = BrainDriver()
    driver.add_model("coder", slots=1)
    driver.add_node()
    return driver


def newest(driver: BrainDriver) -> DecisionRecord:
    return next(driver.state.decisions.newest_first())


def test_it_says_when_the_task_came_and_what_was_expected_of_it(driver: BrainDriver) -> None:
    came_at = driver.now
    task_id = driver.submit(
        app="aider", priority="batch", prompt_tokens=300, max_tokens=40, fills_limit=True, choices=2
    )
    driver.let_pass(30)
    driver.load()
    record = newest(driver)
    assert (record.task_id, record.outcome) == (task_id, Outcome.CHOSEN)
    came_at_ms = round(driver.state.ms_since_1970(came_at))
    assert record.asked == Asked("aider", "batch", came_at_ms, 300, 80)
    assert record.at_ms >= came_at_ms + 30_000


def test_tokens_are_those_that_such_tasks_had(driver: BrainDriver) -> None:
    driver.submit(prompt_tokens=300)
    driver.load()
    result = RunResult(
        (ChoiceEnd(0, FinishReason.EOS, 77),), tokens_in=600, tokens_out=77, decode_ms=900, prefill_ms=300
    )
    driver.handle(events.AttemptEnded(driver.only(effects.StartRun).attempt_id, result))
    driver.submit(prompt_tokens=300)
    asked = newest(driver).asked
    assert asked is not None
    assert (asked.prompt_tokens, asked.output_tokens) == (600, 77)


def test_a_load_has_no_task(driver: BrainDriver) -> None:
    driver.submit()
    driver.load()
    loads = [record.asked for record in driver.state.decisions.newest_first() if not record.task_id]
    assert loads == [None]


def test_an_app_sees_its_own_tasks_alone(driver: BrainDriver) -> None:
    driver.submit(app="aider")
    driver.load()
    record = newest(driver)
    assert decisions.view(record).asked == decisions.view(record, app="aider").asked == record.asked is not None
    assert decisions.view(record, app="eve").asked is None
