"""The waits that are shown agree with each other, with what is known of the tasks, and say where they are guesses."""

import pytest

from llama_orch.v2 import task_pb2
from llorch.finish_reason import FinishReason
from orchestratord.convert.tasks import to_request
from orchestratord.core import effects, events
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.decision import Candidate, DecisionRecord, Outcome
from orchestratord.core.facts.task import ChoiceEnd, RunResult
from orchestratord.core.facts.work import Work
from orchestratord.core.placement.explain import explain, explain_task
from orchestratord.core.placement.sentences import sentence
from orchestratord.views import tasks as views
from support.brain_driver import BrainDriver

pytestmark = pytest.mark.req("ORCH-1016")

TOKEN_MS = 10


def fleet(slots: int = 1) -> BrainDriver:
    """A worker that takes 10 ms for a token. Nothing has run on it."""
    driver = BrainDriver()
    driver.add_model("coder", slots=slots, context=8192)
    driver.add_node()
    driver.submit(max_tokens=5)
    driver.load()
    return driver


def answered(driver: BrainDriver, tokens: int = 5, *, after_ms: int = TOKEN_MS * 5) -> None:
    """The run that began first ends."""
    driver.let_pass(after_ms / 1000)
    attempt_id = next(iter(driver.state.attempts))
    result = RunResult((ChoiceEnd(0, FinishReason.EOS, tokens),), 1, tokens, decode_ms=(tokens - 1) * TOKEN_MS)
    driver.handle(events.AttemptEnded(attempt_id, result))


def taught(slots: int = 1) -> BrainDriver:
    """It has given one answer, of 5 tokens."""
    driver = fleet(slots)
    answered(driver)
    return driver


def best(record: DecisionRecord) -> Candidate:
    return record.candidates[0]


def predicted_ms(driver: BrainDriver, task_id: str) -> int | None:
    return views.view(driver.state, driver.task(task_id)).predicted_start_ms


def test_tasks_of_known_lengths_wait_for_what_those_before_them_will_take() -> None:
    driver = taught()
    tasks = [driver.submit(max_tokens=2000, fills_limit=True) for _ in range(100)]
    assert predicted_ms(driver, tasks[50]) == pytest.approx(50 * 2000 * TOKEN_MS, rel=0.02)
    assert driver.task(tasks[-1]).predicted_start_ms == pytest.approx(99 * 2000 * TOKEN_MS, rel=0.02)
    shown = best(explain_task(driver.state, driver.task(tasks[50])))
    assert shown.ms("queue") == pytest.approx(50 * shown.ms("decode"), rel=0.02)
    assert not shown.is_guess("queue")


def test_several_slots_share_the_work() -> None:
    driver = taught(slots=4)
    tasks = [driver.submit(max_tokens=2000, fills_limit=True) for _ in range(44)]
    assert predicted_ms(driver, tasks[-4]) == pytest.approx(10 * 2000 * TOKEN_MS, rel=0.1)


def test_short_tasks_before_one_that_is_long_do_not_count_as_long_ones() -> None:
    driver = taught()
    driver.submit(max_tokens=1000, fills_limit=True)
    long_one = driver.submit(max_tokens=3000, fills_limit=True)
    short = [driver.submit(max_tokens=100, fills_limit=True) for _ in range(2)]
    assert predicted_ms(driver, long_one) == pytest.approx(1000 * TOKEN_MS, rel=0.02)
    assert predicted_ms(driver, short[1]) == pytest.approx(4100 * TOKEN_MS, rel=0.02)


def test_a_mean_of_other_tasks_is_no_longer_than_the_limit() -> None:
    driver = fleet()
    answered(driver, 1000, after_ms=1000 * TOKEN_MS)
    tasks = [driver.submit(max_tokens=5) for _ in range(101)]
    assert predicted_ms(driver, tasks[-1]) == pytest.approx(100 * 5 * TOKEN_MS, rel=0.05)


def test_an_answer_that_fills_its_limit_says_nothing_of_the_length_of_others() -> None:
    driver = taught()
    driver.submit(max_tokens=3000, fills_limit=True)
    answered(driver, 3000, after_ms=3000 * TOKEN_MS)
    assert driver.state.rates.answers.lengths("", "coder", None).mean == 5


def test_a_model_that_is_explained_waits_for_the_rest_of_what_runs_and_for_what_waits() -> None:
    driver = taught()
    for _ in range(2):
        driver.submit(max_tokens=3000, fills_limit=True)
    driver.let_pass(10)
    shown = best(explain(driver.state, "coder", "", 0, 3000))
    assert shown.ms("queue") == pytest.approx(2 * 3000 * TOKEN_MS - 10_000, rel=0.02)
    assert shown.ms("decode") == pytest.approx(3000 * TOKEN_MS)


def test_a_wait_of_which_nothing_is_known_is_a_guess_that_grows_with_the_queue() -> None:
    driver = fleet()
    waiting = [driver.submit(max_tokens=3000, fills_limit=True) for _ in range(2)]
    records = [explain_task(driver.state, driver.task(task_id)) for task_id in waiting]
    first, second = map(best, records)
    assert (first.is_guess("queue"), second.is_guess("queue")) == (True, True)
    assert 0 < first.ms("queue") < second.ms("queue")
    assert sentence(records[0], is_dry_run=True) == "would wait for a slot on GPU 0 (RTX 3090) of garage"
    assert predicted_ms(driver, waiting[0]) is None


def test_a_run_that_goes_on_far_longer_than_expected_makes_no_wait_of_nothing() -> None:
    """An answer of 5 tokens was all that it was expected by."""
    driver = taught()
    driver.submit(max_tokens=3000)
    waiting = driver.submit(max_tokens=3000)
    driver.let_pass(10)
    shown = best(explain_task(driver.state, driver.task(waiting)))
    assert shown.is_guess("queue")
    assert shown.ms("queue") >= 10_000, "as long again as it has run"
    assert predicted_ms(driver, waiting) is None


def test_what_a_run_will_take_is_known_as_soon_as_another_has_told_the_speed() -> None:
    driver = fleet(slots=2)
    for _ in range(3):
        driver.submit(max_tokens=3000, fills_limit=True)
    answered(driver)
    waiting = driver.submit(max_tokens=10)
    assert predicted_ms(driver, waiting) == pytest.approx(3000 * TOKEN_MS, rel=0.2)


def loading() -> BrainDriver:
    driver = BrainDriver()
    driver.add_model("coder", slots=1, context=8192)
    driver.add_node()
    driver.submit()
    driver.stage()
    driver.handle(events.WorkerStartAccepted(driver.last(effects.StartWorker).spec.worker_id, 1))
    return driver


def test_a_model_that_is_being_loaded_is_waited_for_as_that() -> None:
    driver = loading()
    record = explain(driver.state, "coder", "", 0, 0)
    assert record.outcome is Outcome.WAITS
    told = sentence(record, is_dry_run=True)
    assert told == "would wait for it to be loaded, and for a slot, on GPU 0 (RTX 3090) of garage"
    assert best(record).is_guess("load")
    assert best(record).is_guess("queue")
    assert best(record).ms("load") > 0


def test_the_rest_of_a_load_is_told_where_it_is_known() -> None:
    driver = loading()
    driver.state.rates.loaded("coder", "garage", 4096, 20_000)
    driver.let_pass(5)
    (task_id,) = driver.state.tasks
    record = explain_task(driver.state, driver.task(task_id))
    assert best(record).ms("load") == pytest.approx(15_000, rel=0.1)
    assert best(record).ms("queue") == 0
    assert not best(record).is_guess("load")
    assert sentence(record, is_dry_run=True) == "would wait about 15 s until it is loaded on GPU 0 (RTX 3090) of garage"


def test_a_task_whose_app_is_at_its_limit_is_not_told_to_wait_for_a_slot() -> None:
    driver = taught(slots=2)
    driver.handle(events.AppCreated(App("aider", "0f" * 32, max_concurrent_tasks=1)))
    _, waiting = (driver.submit(app="aider") for _ in range(2))
    record = explain_task(driver.state, driver.task(waiting))
    assert record.outcome is Outcome.WAITS
    told = sentence(record, is_dry_run=True)
    assert told == "would wait for one of the tasks of app 'aider' to end: it may run 1 task at once"
    assert best(record).is_guess("queue")


@pytest.mark.parametrize(
    ("options", "fills"),
    [
        ({"max_tokens": 9, "ignore_eos": True}, True),
        ({"max_tokens": 9}, False),
        ({"ignore_eos": True}, False),
        ({"max_tokens": 9, "ignore_eos": True, "stop": ["."]}, False),
        ({"max_tokens": 9, "ignore_eos": True, "stop_token_ids": [2]}, False),
        ({"max_tokens": 9, "ignore_eos": True, "output_constraint": {"json_schema": '{"type": "object"}'}}, False),
    ],
)
def test_the_length_of_an_answer_is_known_where_its_limit_alone_ends_it(
    options: dict[str, object], *, fills: bool
) -> None:
    work = task_pb2.GenerateWork(prompt="a prompt", **options)  # type: ignore[arg-type]  # the cases name fields
    spec = task_pb2.TaskSpec(model="coder", generate=work)
    request = to_request(
        spec, work=Work.GENERATE, app="", task_id="t", correlation_id="", durable=False, content_digest="", seed=1
    )
    assert request.fills_limit is fills
