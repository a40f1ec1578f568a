"""The queue as the brain uses it: policies, the bound on waiting, deadlines that can't be met any more."""

import pytest

from llorch.assignment_mode import Mode
from llorch.errors import InvalidArgument, Reason, ResourceExhausted
from llorch.finish_reason import FinishReason
from orchestratord.core import effects, events
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.queue_room import QueuePolicy
from orchestratord.core.facts.targets import Place
from orchestratord.core.facts.task import ChoiceEnd, RunResult, TaskError, TaskState
from orchestratord.core.learnt.answer_lengths import Answer
from orchestratord.core.state import BrainConfig
from support.brain_driver import BrainDriver, gpu


def driver_with_worker(**config: object) -> BrainDriver:
    """A worker of "coder" with one slot, which has just given an answer of 100 tokens in 10 s."""
    driver = BrainDriver(BrainConfig(**config))  # type: ignore[arg-type]  # tests name fields
    driver.add_model("coder", slots=1, context=2048)
    driver.add_node()
    driver.submit(prompt_tokens=100)
    driver.load("coder")
    driver.let_pass(10)
    answer(driver)
    for _ in range(15):
        driver.state.rates.answers.came("", "coder", Answer(101, was_cut=False))
    driver.forget_effects()
    return driver


def answer(driver: BrainDriver) -> None:
    result = RunResult((ChoiceEnd(0, FinishReason.EOS, 101),), 100, 101, prefill_ms=1000, decode_ms=9000)
    driver.handle(events.AttemptEnded(next(iter(driver.state.attempts)), result))


@pytest.mark.req("ORCH-1002")
def test_under_drop_lru_the_dropped_task_ends_with_the_reason_and_the_new_one_waits() -> None:
    driver = driver_with_worker(queue_capacity=1, queue_policy=QueuePolicy.DROP_LRU)
    driver.submit()
    old, other = driver.submit(priority="batch", durable=True), driver.submit(priority="batch")
    new = driver.submit()
    terminal = driver.only(effects.PersistTerminal)
    assert terminal.task_id == old
    assert isinstance(terminal.terminal, TaskError)
    assert terminal.terminal.reason is Reason.DROPPED_FROM_QUEUE
    assert driver.state.queue.waiting_for("coder") == [new, other]


def test_no_task_is_dropped_for_a_task_that_is_refused() -> None:
    driver = driver_with_worker(queue_capacity=1, queue_policy=QueuePolicy.DROP_LRU)
    waiting = [driver.submit() for _ in range(3)][1:]
    with pytest.raises(InvalidArgument) as refused:
        driver.submit(max_tokens=2049)
    assert refused.value.reason is Reason.CONTEXT_TOO_LONG
    with pytest.raises(ResourceExhausted):
        driver.submit(priority="batch")
    assert driver.state.queue.waiting_for("coder") == waiting


@pytest.mark.req("ORCH-1003")
def test_batch_work_gets_a_slot_within_the_bound_however_much_interactive_work_comes() -> None:
    driver = driver_with_worker(max_starvation_s=30)
    driver.submit()
    batch = {driver.submit(priority="batch") for _ in range(2)}
    began = driver.now
    for _ in range(40):
        driver.submit()
    started = []
    for _ in range(20):
        driver.let_pass(4)
        answer(driver)
        if driver.last(effects.StartRun).request.task_id in batch:
            started.append(driver.now - began)
    assert started == [32, 64], "the first slot after 30 s, and the first one 30 s after that"


@pytest.mark.req("ORCH-1003")
def test_a_task_that_can_not_be_done_in_time_any_more_ends_before_its_deadline() -> None:
    driver = driver_with_worker()
    driver.submit()
    late = driver.submit(prompt_tokens=100, deadline_s=15)
    driver.let_pass(5)
    assert driver.task(late).state is TaskState.QUEUED
    driver.let_pass(2)
    task = driver.task(late)
    assert task.state is TaskState.EXPIRED, "even at once it would take 9.1 s, and 8 are left"
    assert isinstance(task.terminal, TaskError)
    assert task.terminal.reason is Reason.DEADLINE_PASSED
    assert "needs at least" in task.terminal.message


def test_a_task_that_was_late_and_is_not_any_more_goes_on() -> None:
    driver = driver_with_worker()
    driver.submit()
    task_id = driver.submit(prompt_tokens=100, deadline_s=15)
    driver.let_pass(5)
    fast = RunResult((ChoiceEnd(0, FinishReason.EOS, 11),), 100, 11, prefill_ms=100, decode_ms=100)
    driver.handle(events.AttemptEnded(next(iter(driver.state.attempts)), fast))
    driver.let_pass(8)
    assert driver.task(task_id).state is TaskState.RUNNING


def test_few_answers_are_not_enough_to_call_a_task_too_late() -> None:
    driver = driver_with_worker()
    driver.submit()
    task_id = driver.submit(app="another", prompt_tokens=100, deadline_s=15)
    driver.state.rates.answers.came("another", "coder", Answer(101, was_cut=False))
    driver.let_pass(14)
    assert driver.task(task_id).state is TaskState.QUEUED


def test_a_task_whose_like_was_never_seen_is_not_called_too_late() -> None:
    driver = driver_with_worker()
    driver.add_model("writer", slots=1, context=2048)
    task_id = driver.submit("writer", deadline_s=10)
    driver.let_pass(9.5)
    assert driver.task(task_id).state is TaskState.QUEUED
    driver.let_pass(1)
    assert driver.task(task_id).state is TaskState.EXPIRED


@pytest.mark.req("ORCH-1001")
def test_a_task_that_has_to_wait_is_told_how_long() -> None:
    driver = driver_with_worker()
    for _ in range(3):
        driver.submit(prompt_tokens=100)
    told = [opened.predicted_start_ms for opened in driver.all_of(effects.OpenLog)]
    assert told[0] == 0
    assert told[1:] == pytest.approx([10_000, 20_000], rel=0.1)
    driver.forget_effects()
    driver.let_pass(10)
    answer(driver)
    judged = driver.only(effects.PredictionJudged)
    assert judged.kind == "start"
    assert judged.actual_ms == pytest.approx(10_000)
    assert judged.predicted_ms == told[1]


def test_the_log_opens_before_anything_is_said_in_it() -> None:
    driver = driver_with_worker()
    driver.add_model("writer", slots=1, context=2048)
    driver.forget_effects()
    driver.submit("writer", durable=True)
    kinds = [type(effect) for effect in driver.effects]
    assert kinds[0] is effects.OpenLog
    assert effects.Narrate in kinds


def test_of_a_task_whose_app_is_at_its_limit_no_start_is_predicted() -> None:
    driver = driver_with_worker()
    driver.handle(events.AppDefined(App("aider", max_concurrent_tasks=1)))
    for _ in range(2):
        driver.submit(app="aider", prompt_tokens=100)
    assert [opened.predicted_start_ms for opened in driver.all_of(effects.OpenLog)] == [0, None]


def test_slots_that_a_task_may_not_use_do_not_count_for_its_start() -> None:
    driver = driver_with_worker()
    driver.add_node("attic", gpu("GPU-attic"), staged={"file:/models/coder.gguf": 4096})
    driver.handle(events.ModelLoadAsked("coder", "worker-attic", (Place("attic"),), anew=True))
    spec = driver.last(effects.StartWorker).spec
    driver.worker_ready(spec, "attic")
    driver.handle(events.AppDefined(App("aider")))
    driver.handle(events.AssignmentSet(Assignment("", "coder", "aider", ("garage",), Mode.PIN)))
    driver.forget_effects()
    driver.submit(app="aider", prompt_tokens=100)
    driver.submit(app="aider", prompt_tokens=100)
    told = [opened.predicted_start_ms for opened in driver.all_of(effects.OpenLog)]
    assert told[0] == 0
    assert told[1] is None or told[1] > 1000, "a slot is free on the other node, but not for this app"
