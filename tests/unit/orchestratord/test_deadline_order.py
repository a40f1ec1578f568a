"""Within an app, the earliest deadline is next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestratord.core import effects, events
from orchestratord.core.facts.admission import AdmissionQueue
from orchestratord.core.facts.queue_room import QueuePolicy
from support.brain_driver import BrainDriver

PATIENCE_S = 60.0


def queue(now: float = 0.0) -> AdmissionQueue:
    return AdmissionQueue(("interactive", "batch"), 1000, QueuePolicy.REJECT, max_starvation_s=PATIENCE_S, now=now)


def busy_worker() -> BrainDriver:
    """With one slot, which a task has."""
    driver = BrainDriver()
    driver.add_node()
    driver.add_model(slots=1)
    driver.submit()
    driver.load()
    return driver


def served(waiting: AdmissionQueue, device_s: float = 1.0) -> list[str]:
    order = []
    while (task_id := next(waiting.heads("coder"), None)) is not None:
        order.append(task_id)
        waiting.take(task_id, device_s)
    return order


@pytest.mark.req("ORCH-1035")
def test_the_earliest_deadline_goes_first_and_of_equal_ones_the_first_come() -> None:
    waiting = queue()
    for task_id, due_at in {"late": 30.0, "soon": 10.0, "also-soon": 10.0, "between": 20.0}.items():
        waiting.add(task_id, "coder", "interactive", due_at=due_at)
    assert served(waiting) == ["soon", "also-soon", "between", "late"]


@pytest.mark.req("ORCH-1035")
def test_a_task_without_a_deadline_is_passed_for_no_longer_than_any_task_may_be() -> None:
    waiting = queue(now=100.0)
    waiting.add("patient", "coder", "interactive")
    waiting.add("urgent", "coder", "interactive", due_at=100.0 + PATIENCE_S / 2)
    waiting.add("far", "coder", "interactive", due_at=100.0 + 10 * PATIENCE_S)
    waiting.now += PATIENCE_S
    waiting.add("urgent now", "coder", "interactive", due_at=waiting.now + 1)
    assert served(waiting) == ["urgent", "patient", "urgent now", "far"]


@pytest.mark.req("ORCH-1035")
def test_a_deadline_is_no_use_against_other_apps_and_classes() -> None:
    waiting = queue()
    for number in range(3):
        waiting.add(f"calm-{number}", "coder", "interactive", app="calm")
        waiting.add(f"hasty-{number}", "coder", "interactive", app="hasty", due_at=1.0)
    waiting.add("batch", "coder", "batch", due_at=0.5)
    order = [task_id.split("-")[0] for task_id in served(waiting)]
    assert order == ["calm", "hasty"] * 3 + ["batch"]


@pytest.mark.req("ORCH-1035")
def test_of_one_app_the_earliest_deadline_goes_first_in_whatever_lane_it_waits() -> None:
    waiting = queue()
    waiting.add("first", "coder", "interactive", lane="here")
    waiting.add("urgent", "coder", "interactive", lane="there", due_at=5.0)
    assert list(waiting.heads("coder")) == ["urgent", "first"]


@pytest.mark.req("ORCH-1035")
@given(st.lists(st.none() | st.floats(0, 500), max_size=40), st.data())
def test_positions_follow_the_order(deadlines: list[float | None], data: st.DataObject) -> None:
    waiting = queue()
    for number, due_at in enumerate(deadlines):
        waiting.add(str(number), "coder", "interactive", due_at=due_at)
        waiting.now += 1
    for number in data.draw(st.sets(st.integers(0, max(0, len(deadlines) - 1)))) if deadlines else ():
        waiting.remove(str(number))
    left = [str(number) for number in range(len(deadlines)) if str(number) in waiting]
    due_at = data.draw(st.none() | st.floats(0, 500))
    foretold = waiting.ahead("coder", "interactive", due_at=due_at).tasks
    positions = {task_id: waiting.before(task_id).tasks for task_id in left}
    waiting.add("new", "coder", "interactive", due_at=due_at)
    assert foretold == waiting.before("new").tasks
    order = served(waiting)
    assert order.index("new") == foretold
    order.remove("new")
    assert [positions[task_id] for task_id in order] == list(range(len(left)))


def test_a_task_that_lets_others_pass_keeps_all_else_that_it_had() -> None:
    waiting = queue()
    waiting.add("late", "coder", "interactive", due_at=1.0, unkept=True)
    waiting.add("later", "coder", "interactive", due_at=2.0)
    waiting.add("undated", "coder", "interactive")
    for task_id in ("late", "later"):
        waiting.let_others_pass(task_id)
    waiting.add("dated", "coder", "interactive", due_at=50.0)
    waiting.answered("late")
    positions = [waiting.before(task_id).tasks for task_id in ("dated", "late", "later", "undated")]
    assert positions == [0, 1, 2, 3], "as tasks without a deadline they are in the order of arrival"
    assert served(waiting) == ["dated", "late", "later", "undated"]


@pytest.mark.req("ORCH-1035")
def test_a_task_that_will_be_late_makes_no_other_one_late() -> None:
    driver = BrainDriver()
    driver.add_node()
    driver.add_model(slots=1)
    driver.state.rates.held("coder", 8000.0)
    driver.submit()
    driver.load()
    driver.submit(deadline_s=10.0)
    in_time = driver.submit(deadline_s=20.0)
    assert driver.state.queue.before(in_time).tasks == 1
    driver.let_pass(3)
    assert driver.state.queue.before(in_time).tasks == 0
    driver.finish_attempt(driver.only(effects.StartRun).attempt_id)
    assert driver.last(effects.StartRun).request.task_id == in_time


@pytest.mark.req("ORCH-1035")
def test_the_next_slot_goes_to_the_task_with_the_earliest_deadline() -> None:
    driver = busy_worker()
    driver.submit(deadline_s=50.0)
    driver.let_pass(5)
    urgent = driver.submit(deadline_s=20.0)
    driver.finish_attempt(driver.only(effects.StartRun).attempt_id)
    assert driver.last(effects.StartRun).request.task_id == urgent


def test_a_task_that_is_requeued_is_due_when_it_was() -> None:
    driver = BrainDriver()
    driver.add_node()
    driver.add_model(slots=1)
    moved = driver.submit(deadline_s=20.0)
    driver.load()
    sooner, later = driver.submit(deadline_s=19.0), driver.submit(deadline_s=21.0)
    driver.let_pass(5)
    driver.handle(events.AttemptUnknown(driver.only(effects.StartRun).attempt_id))
    assert driver.last(effects.StartRun).request.task_id == sooner
    assert list(driver.state.queue.heads("coder")) == [moved]
    assert driver.state.queue.before(later).tasks == 1


def test_the_length_that_a_task_is_bounded_to_tells_how_late_it_may_start() -> None:
    driver = busy_worker()
    driver.state.rates.held("coder", 30_000.0)
    driver.finish_attempt(driver.only(effects.StartRun).attempt_id, tokens_out=50)
    driver.submit()
    for _ in range(3):
        driver.submit()
    short = driver.submit(deadline_s=20.0, max_tokens=1, fills_limit=True)
    driver.let_pass(1)
    assert driver.state.queue.before(short).tasks == 0


def test_a_task_that_is_kept_late_is_foretold_a_start() -> None:
    """Its hope is over before the store has it, and its app is at its limit."""
    driver = busy_worker()
    driver.state.rates.held("coder", 30_000.0)
    driver.store_answers = False
    task_id = driver.submit(durable=True, deadline_s=20.0)
    driver.let_pass(1)
    driver.handle(events.TaskKept(task_id))
    assert driver.task(task_id).predicted_start_ms is not None


def test_a_deadline_may_be_as_far_as_can_be() -> None:
    waiting = AdmissionQueue(("interactive", "batch"), 1000, QueuePolicy.REJECT, max_starvation_s=float("inf"))
    waiting.add("never", "coder", "interactive")
    waiting.add("dated", "coder", "interactive", due_at=1e9)
    assert served(waiting) == ["dated", "never"]
