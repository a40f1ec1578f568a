"""Changes that callers ask for: nothing of them happens before the store has them, and nothing if it never does."""

from typing import Any

import pytest

from llorch.assignment_mode import Mode
from llorch.errors import NotFound, Reason, ResourceExhausted, Unavailable
from orchestratord.core import effects, events
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.fleet import Leaving
from orchestratord.core.facts.model import ModelSpec, ModelState, Origin
from orchestratord.core.facts.queue_room import QueuePolicy
from orchestratord.core.facts.task import TaskError, TaskState
from orchestratord.core.state import BrainConfig
from support.brain_driver import BrainDriver, gpu

CODER = "file:/models/coder.gguf"
STAGED = {CODER: 4096, "file:/models/writer.gguf": 4096, "file:/models/big.gguf": 4096}


def brain(**config: Any) -> BrainDriver:
    """`coder` is loaded and idle on the first of two cards; `app` has a key; the other card is released."""
    driver = BrainDriver(BrainConfig(min_residency_s=0.0, **config))
    driver.add_model("coder", 4096, vram_claim_mib=8000, slots=1)
    driver.add_model("writer", 4096, vram_claim_mib=8000, slots=1)
    driver.handle(events.AppCreated(App("aider", "0f" * 32)))
    driver.add_node("garage", gpu("GPU-1", total_mib=10_000), gpu("GPU-2", total_mib=10_000, index=1), staged=STAGED)
    driver.handle(events.ModelLoadAsked("coder", "worker-of-coder"))
    driver.worker_ready(driver.only(effects.StartWorker).spec)
    (other,) = {"GPU-1", "GPU-2"} - set(driver.only(effects.StartWorker).spec.device_ids)
    driver.handle(events.DeviceReleaseAsked("garage", (other,)))
    driver.forget_effects()
    driver.store_answers = False
    return driver


def rule(**options: Any) -> Assignment:
    fields: dict[str, Any] = {
        "assignment_id": "",
        "model": "coder",
        "app": "",
        "targets": ("garage",),
        "mode": Mode.AVOID,
    }
    return Assignment(**(fields | options))


DESCRIBED = events.ModelRegistered(ModelSpec("coder", CODER, slots=4), Origin.CALL, "call", 9)
CHANGES: dict[str, events.Command[Any]] = {
    "a model is added": events.ModelRegistered(ModelSpec("new", "file:/n.gguf"), Origin.CALL, "call", 9),
    "a model is changed": DESCRIBED,
    "a model is retired": events.ModelStateSet("coder", ModelState.RETIRED),
    "a model is deleted": events.ModelDeleted("coder"),
    "a rule is set": events.AssignmentSet(rule()),
    "a rule keeps a model loaded": events.AssignmentSet(rule(model="writer", mode=Mode.PREFER, keep_loaded=True)),
    "an app is created": events.AppCreated(App("new", "1f" * 32)),
    "an app is changed": events.AppUpdated(App("aider", max_concurrent_tasks=1)),
    "an app is deleted": events.AppDeleted("aider"),
    "devices are released": events.DeviceReleaseAsked("garage", ("GPU-1", "GPU-2"), 60.0, 160_000),
    "devices are resumed": events.DeviceResumeAsked("garage", ("GPU-1", "GPU-2")),
}
ACTS_ON_WORKERS = {
    "a model is changed",
    "a model is deleted",
    "a rule is set",
    "a rule keeps a model loaded",
    "devices are released",
}

every_change = pytest.mark.parametrize("what", CHANGES)


@every_change
def test_a_change_that_is_not_kept_has_changed_nothing(what: str) -> None:
    driver = brain()
    before = repr(driver.state)
    driver.handle(CHANGES[what])
    assert [type(effect) for effect in driver.effects] == [effects.PersistChange], "all that happens before it is kept"
    driver.handle(events.ChangeNotKept())
    assert repr(driver.state) == before
    assert len(driver.effects) == 1


@every_change
def test_what_follows_from_a_change_happens_when_it_is_kept(what: str) -> None:
    driver = brain()
    before = repr(driver.state)
    driver.handle(CHANGES[what])
    driver.handle(events.Tick())
    assert not driver.all_of(effects.StopWorker)
    assert not driver.all_of(effects.StartWorker)
    driver.handle(events.ChangeKept())
    assert repr(driver.state) != before
    assert bool(driver.all_of(effects.StopWorker)) is (what in ACTS_ON_WORKERS)
    driver.handle(events.ChangeKept())  # an answer to nothing


def test_a_rule_that_keeps_a_model_loaded_loads_it_when_it_is_kept() -> None:
    driver = brain()
    driver.handle(events.DeviceResumeAsked("garage", ("GPU-1", "GPU-2")))
    driver.handle(events.ChangeKept())
    driver.handle(CHANGES["a rule keeps a model loaded"])
    assert not driver.all_of(effects.StartWorker)
    driver.handle(events.ChangeKept())
    assert driver.only(effects.StartWorker).spec.model == "writer"


@every_change
def test_there_is_one_change_at_a_time(what: str) -> None:
    """The second is checked against what is in force, so it waits for the store, or is refused with nothing changed."""
    driver = brain()
    driver.handle(CHANGES[what])
    for second in (events.AppCreated(App("another", "2f" * 32)), events.ModelStateSet("writer", ModelState.RETIRED)):
        with pytest.raises(Unavailable, match="earlier change is still being written") as refused:
            driver.ask(second)
        assert refused.value.retry_after_ms
    driver.handle(events.ChangeKept())
    driver.ask(events.AppCreated(App("another", "2f" * 32)))


def test_a_change_that_changes_nothing_waits_for_nothing() -> None:
    driver = brain()
    driver.handle(events.ModelStateSet("coder", ModelState.ACTIVE))
    driver.handle(events.AppUpdated(App("aider")))
    assert driver.effects == []
    assert driver.state.proposed is None


def test_the_settings_file_is_in_force_at_once() -> None:
    """It is read at every start: what it says is not changed by what can be stored."""
    driver = brain()
    driver.handle(events.AppDefined(App("aider", weight=2.0)))
    driver.handle(events.AssignmentSet(rule(origin=Origin.FILE)))
    driver.handle(events.ModelRegistered(ModelSpec("writer", slots=3), Origin.FILE, "file"))
    assert driver.state.apps.get("aider").weight == 2.0
    assert driver.state.catalog.get("writer").slots == 3
    assert driver.only(effects.StopWorker).why is Leaving.CHANGED


def test_the_time_of_a_release_counts_from_when_it_was_asked_for() -> None:
    driver = brain()
    driver.handle(CHANGES["devices are released"])
    driver.advance(59)
    driver.handle(events.ChangeKept())
    assert len(driver.state.released) == 2
    driver.advance(2)
    assert len(driver.state.released) == 0


def test_a_release_that_ends_while_the_next_one_is_written_is_stored_again() -> None:
    driver = brain()
    driver.handle(CHANGES["devices are released"])
    driver.handle(events.ChangeKept())
    driver.handle(events.DeviceReleaseAsked("garage", ("GPU-1",)))
    driver.advance(61)
    assert len(driver.state.released) == 0
    driver.forget_effects()
    driver.handle(events.ChangeKept())
    again = driver.only(effects.PersistRecord)
    assert (again.before, again.after) == (None, driver.state.released.find(("garage", "GPU-1")))


def test_tasks_that_came_while_the_end_of_their_model_was_written_end_with_it() -> None:
    driver = brain()
    driver.handle(events.ModelDeleted("coder"))
    running, waiting = driver.submit(), driver.submit()
    driver.handle(events.ChangeKept())
    assert driver.task(running).state is TaskState.RUNNING
    terminal = driver.task(waiting).terminal
    assert isinstance(terminal, TaskError)
    assert terminal.reason is Reason.MODEL_NOT_FOUND
    assert not driver.all_of(effects.StopWorker)
    driver.finish_attempt(driver.only(effects.StartRun).attempt_id)
    assert driver.only(effects.StopWorker).why is Leaving.CHANGED


def test_loads_that_began_while_the_end_of_their_model_was_written_are_given_up() -> None:
    driver = brain()
    driver.handle(events.DeviceResumeAsked("garage", ("GPU-1", "GPU-2")))
    driver.handle(events.ChangeKept())
    driver.handle(events.ModelDeleted("writer"))
    driver.submit("writer")
    spec = driver.only(effects.StartWorker).spec
    driver.handle(events.ChangeKept())
    assert driver.only(effects.StopWorker).worker_id == spec.worker_id
    assert "writer" not in driver.state.loads


def test_a_rule_that_becomes_one_about_another_app_lets_go_of_the_first() -> None:
    driver = brain()
    driver.store_answers = True
    driver.handle(events.AppCreated(App("other", "3f" * 32)))
    driver.submit()  # it takes the only slot
    waiting = driver.submit(app="aider")
    without_rule = driver.state.queue[waiting].lane
    driver.handle(events.AssignmentSet(rule(assignment_id="r", app="aider", mode=Mode.PREFER)))
    assert driver.state.queue[waiting].lane != without_rule
    driver.handle(events.AssignmentSet(rule(assignment_id="r", app="other", mode=Mode.PREFER)))
    assert driver.state.queue[waiting].lane == without_rule


# Durable tasks.


def test_a_durable_task_has_nothing_loaded_and_no_worker_leaves_before_it_is_kept() -> None:
    driver = brain()
    task_id = driver.submit("writer", durable=True)
    driver.let_pass(30)
    driver.report()
    loads = effects.StageModel, effects.StartWorker, effects.StopWorker
    assert not any(driver.all_of(kind) for kind in loads)
    assert driver.state.demand.among_next(1, "writer") == 0
    driver.handle(events.TaskKept(task_id))
    driver.let_pass(30)
    assert driver.only(effects.StopWorker).why is Leaving.EVICTED


def test_a_durable_task_that_is_not_kept_has_changed_nothing_for_others() -> None:
    driver = brain()
    task_id = driver.submit("writer", durable=True)
    driver.handle(events.TaskNotKept(task_id, "the disk is full"))
    driver.let_pass(30)
    assert {type(effect) for effect in driver.effects} == {
        effects.OpenLog,
        effects.PersistTask,
        effects.PersistTerminal,
    }


def test_a_durable_task_beside_one_that_waits_holds_up_no_load() -> None:
    driver = brain()
    driver.submit("writer", durable=True)
    driver.submit("writer")
    driver.let_pass(30)
    assert driver.all_of(effects.StopWorker)


def test_a_durable_task_takes_a_free_slot_as_soon_as_it_is_kept() -> None:
    driver = brain()
    task_id = driver.submit(durable=True)
    driver.let_pass(5)
    assert driver.all_of(effects.StartRun) == []
    assert driver.only(effects.OpenLog).predicted_start_ms == 0, "a slot is free"
    driver.handle(events.TaskKept(task_id))
    assert driver.only(effects.StartRun).request.task_id == task_id
    assert not driver.all_of(effects.PredictionJudged), "it has waited for the disk, and for no slot"


def test_others_pass_a_durable_task_that_is_not_kept_yet_and_it_keeps_its_place() -> None:
    driver = brain()
    running = driver.submit()  # it takes the only slot
    first, second = driver.submit(durable=True), driver.submit(durable=True)
    third, fourth = driver.submit(), driver.submit()
    order = [running]
    driver.handle(events.TaskKept(second))
    for answer in (None, None, first, None, None):
        if answer is not None:
            driver.handle(events.TaskKept(answer))
        started = driver.last(effects.StartRun)
        driver.finish_attempt(started.attempt_id)
        order.append(driver.last(effects.StartRun).request.task_id)
    assert list(dict.fromkeys(order)) == [running, second, third, first, fourth]


def test_a_task_that_is_not_kept_leaves_its_request_id_to_the_next_one() -> None:
    driver = brain()
    refused = driver.submit(durable=True, request_id="r1")
    driver.handle(events.TaskNotKept(refused, "the disk is full"))
    again = driver.submit(durable=True, request_id="r1")
    assert driver.state.by_request_id["", "r1"] == again
    driver.handle(events.TerminalPersisted(refused))
    assert refused not in driver.state.tasks, "it takes the room of none that was accepted"
    assert driver.state.by_request_id["", "r1"] == again, "it goes with the task that has it"


def test_another_task_is_dropped_for_a_durable_one_only_when_that_is_kept() -> None:
    driver = brain(queue_capacity=1, queue_policy=QueuePolicy.DROP_LRU)
    running, first, second = driver.submit(), driver.submit(), driver.submit()
    task_id = driver.submit(durable=True)
    assert [driver.task(other).is_finished for other in (running, first, second)] == [False, False, False]
    driver.handle(events.TaskKept(task_id))
    assert [driver.task(other).is_finished for other in (running, first, second)] == [False, True, False]
    assert task_id in driver.state.queue


def test_durable_tasks_that_the_store_does_not_answer_for_are_bounded() -> None:
    driver = brain(queue_capacity=2, queue_policy=QueuePolicy.DROP_LRU)
    outcomes = [_submitted(driver) for _ in range(20)]
    assert outcomes[-1] is Reason.QUEUE_FULL
    assert len(driver.state.queue) <= 8


def _submitted(driver: BrainDriver) -> Reason | None:
    try:
        driver.submit(durable=True)
    except ResourceExhausted as error:
        return error.reason
    return None


def test_when_a_durable_task_starts_is_told_once_its_load_has_begun() -> None:
    """Where it is known how long loads take: its log began without it."""
    driver = brain()
    driver.store_answers = True
    driver.handle(events.DeviceResumeAsked("garage", ("GPU-1", "GPU-2")))
    driver.handle(events.ModelLoadAsked("writer", "worker-of-writer"))
    spec = driver.only(effects.StartWorker).spec
    driver.let_pass(10)
    driver.worker_ready(spec)
    driver.handle(events.ModelUnloadAsked("writer", even_if_busy=True))
    driver.worker_ended(spec)
    driver.forget_effects()
    task_id = driver.submit("writer", durable=True)
    assert driver.only(effects.OpenLog).predicted_start_ms is None
    told = driver.only(effects.StartPredicted)
    assert (told.task_id, told.predicted_start_ms) == (task_id, driver.task(task_id).predicted_start_ms)
    assert 5000 < told.predicted_start_ms < 15_000


def test_an_unknown_model_is_refused_before_the_store_is_asked() -> None:
    driver = brain()
    with pytest.raises(NotFound):
        driver.handle(events.ModelDeleted("nope"))
    assert driver.effects == []
    assert driver.state.proposed is None
