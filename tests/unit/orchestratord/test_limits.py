"""What the brain takes in has bounds: in bytes of what waits, in sessions, in readers."""

from dataclasses import replace

import pytest

from llorch.errors import Reason, ResourceExhausted
from orchestratord.core import events
from orchestratord.core.facts import sessions as session_facts
from orchestratord.core.facts.queue_room import QueuePolicy
from orchestratord.core.facts.rules import Wishes
from orchestratord.core.facts.task import TaskError, TaskState
from orchestratord.core.lives.model_loading import MOST_LOADS
from orchestratord.core.lives.task_life import MOST_READERS, MOST_READERS_OF_TASK
from orchestratord.core.state import BrainConfig
from support.brain_driver import BrainDriver
from support.short_lives import ShortLives

MIB = 2**20


def waiting_brain(policy: QueuePolicy = QueuePolicy.REJECT, mib: int = 8) -> BrainDriver:
    """Nothing is loaded: whatever comes waits."""
    driver = BrainDriver(BrainConfig(queue_bytes=mib * MIB, queue_policy=policy))
    driver.add_model("coder")
    driver.add_node()
    return driver


def test_prompts_that_wait_fill_the_queue_by_their_bytes() -> None:
    driver = waiting_brain()
    first = [driver.submit(payload=bytes(MIB)) for _ in range(7)]
    with pytest.raises(ResourceExhausted) as refused:
        driver.submit(payload=bytes(MIB))
    error = refused.value
    assert (error.reason, error.metadata["policy_label"]) == (Reason.QUEUE_FULL, "reject")
    assert error.retry_after_ms
    driver.submit(priority="batch", payload=bytes(MIB))
    driver.handle(events.TaskCancelled(first[0], ""))
    driver.submit(payload=bytes(MIB))


@pytest.mark.parametrize("durable", [False, True])
def test_under_drop_lru_as_many_make_room_as_it_takes(durable: bool) -> None:
    driver = waiting_brain(QueuePolicy.DROP_LRU, mib=4)
    small = [driver.submit(priority="batch", payload=bytes(MIB)) for _ in range(7)]
    driver.submit(payload=bytes(3 * MIB), durable=durable)
    dropped = [task_id for task_id in small if driver.task(task_id).state is TaskState.FAILED]
    assert dropped == small[:3]
    terminal = driver.task(small[0]).terminal
    assert isinstance(terminal, TaskError)
    assert terminal.reason is Reason.DROPPED_FROM_QUEUE
    assert driver.state.queue.size("batch") + driver.state.queue.size("interactive") <= 8 * MIB


def test_small_tasks_count_with_what_they_hold_beside_their_texts() -> None:
    driver = waiting_brain()
    long_wishes = Wishes(pin=("garage",), prefer=tuple(f"garage/{'x' * 500}-{number}" for number in range(3)))
    plain = driver.task(driver.submit()).request
    assert plain.waiting_bytes == 4096
    assert driver.task(driver.submit(wishes=Wishes(pin=("garage",)))).request.waiting_bytes > 4096 + 256
    assert replace(plain, wishes=long_wishes).waiting_bytes > 4096 + 3 * 2000


def test_of_too_many_sessions_the_one_ends_that_was_used_longest_ago_by_the_app_with_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_facts, "MOST_SESSIONS", 10)
    brain = ShortLives()
    brain.run("staying", app="careful", session_id="old")
    for number in range(9):
        brain.run("staying", session_id=f"s{number}")
    brain.run("staying", session_id="s0")
    brain.run("staying", session_id="one-more")
    left = {(session.app, session.session_id) for session in brain.state.sessions.all()}
    assert len(left) == len(brain.rows["sessions"]) == 10
    assert ("careful", "old") in left
    assert ("", "s0") in left
    assert ("", "s1") not in left


def test_readers_of_a_task_and_of_all_tasks_are_bounded() -> None:
    driver = waiting_brain()
    task_id = driver.submit(durable=True)
    for _ in range(MOST_READERS_OF_TASK):
        driver.handle(events.ReaderAttached(task_id))
    with pytest.raises(ResourceExhausted, match=f"has {MOST_READERS_OF_TASK} readers already") as refused:
        driver.handle(events.ReaderAttached(task_id))
    assert refused.value.reason is Reason.TOO_MANY_CALLS
    driver.handle(events.ReaderLeft(task_id))
    driver.handle(events.ReaderAttached(task_id))
    while driver.state.readers < MOST_READERS:
        other = driver.submit(durable=True)
        for _ in range(min(MOST_READERS_OF_TASK, MOST_READERS - driver.state.readers)):
            driver.handle(events.ReaderAttached(other))
    known = len(driver.state.tasks)
    with pytest.raises(ResourceExhausted, match=f"has {MOST_READERS} readers"):
        driver.submit()
    assert len(driver.state.tasks) == known, "a task that is nothing without its reader is not admitted"
    driver.submit(durable=True)
    driver.handle(events.ReaderLeft(task_id))
    driver.submit()
    assert driver.state.readers == MOST_READERS


def test_loads_that_are_asked_for_and_find_no_place_are_bounded() -> None:
    driver = waiting_brain()
    driver.state.catalog.get("coder").size_mib = 20_000
    driver.state.fleet.nodes["garage"].staged["file:/models/coder.gguf"] = 20_000
    for number in range(MOST_LOADS):
        driver.handle(events.ModelLoadAsked("coder", f"load-{number}", anew=True))
    with pytest.raises(ResourceExhausted, match=f"{MOST_LOADS} loads are under way") as refused:
        driver.handle(events.ModelLoadAsked("coder", "one-more", anew=True))
    assert refused.value.reason is Reason.TOO_MANY_CALLS
    assert driver.state.loads.get("one-more") is None
