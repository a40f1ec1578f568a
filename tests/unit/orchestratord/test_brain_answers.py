"""What commands are answered with: what holds when they were handled."""

import typing
from typing import Any

import pytest

from llorch.assignment_mode import Mode
from llorch.errors import NotFound
from orchestratord.core import effects, events
from orchestratord.core.brain import HANDLERS
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.model import ModelSpec, ModelState, Origin
from orchestratord.core.facts.targets import Place
from orchestratord.core.facts.task import CancelOutcome, TaskRequest
from support.brain_driver import BrainDriver, gpu


def request(task_id: str, **options: Any) -> TaskRequest:
    return TaskRequest(task_id, model="coder", payload=b"", content_digest="digest", seed=1, **options)


def loaded() -> BrainDriver:
    """One worker of `coder`, ready and idle."""
    driver = BrainDriver()
    driver.add_model(slots=1)
    driver.add_node()
    driver.load_idle("coder")
    return driver


@pytest.mark.parametrize("event", HANDLERS, ids=lambda event: event.__name__)
def test_a_handler_returns_what_its_command_is_answered_with(event: type) -> None:
    handler = HANDLERS[event]
    returned = typing.get_type_hints(handler)["return"]
    promised = type(None)
    if issubclass(event, events.Command):
        (base,) = event.__orig_bases__  # type: ignore[attr-defined]  # typing puts it there
        (promised,) = typing.get_args(base)
    assert returned == promised


def test_a_submission_is_answered_with_its_task_and_a_repeated_one_with_the_first() -> None:
    driver = loaded()
    first = driver.ask(events.TaskSubmitted(request("task-a", request_id="once")))
    assert first is driver.task("task-a")
    assert driver.ask(events.TaskSubmitted(request("task-b", request_id="once"))) is first


def test_a_cancel_tells_whether_there_was_something_to_cancel() -> None:
    driver = loaded()
    driver.ask(events.TaskSubmitted(request("task-a")))
    assert driver.ask(events.TaskCancelled("task-a")) is CancelOutcome.CANCELLED
    assert driver.ask(events.TaskCancelled("task-a")) is CancelOutcome.ALREADY_FINISHED


def test_an_app_cancels_its_own_tasks_alone() -> None:
    driver = loaded()
    driver.ask(events.TaskSubmitted(request("task-a", app="aider")))
    with pytest.raises(NotFound):
        driver.ask(events.TaskCancelled("task-a", app="open-webui"))
    assert not driver.task("task-a").is_finished
    assert driver.ask(events.TaskCancelled("task-a", app="aider")) is CancelOutcome.CANCELLED


def test_a_load_is_answered_with_the_worker_that_comes_or_is_there() -> None:
    driver = BrainDriver()
    driver.add_model()
    driver.add_node("garage", gpu(), gpu("GPU-2"))
    assert driver.ask(events.ModelLoadAsked("coder", "worker-a")) == "worker-a"
    assert driver.ask(events.ModelLoadAsked("coder", "worker-b")) == "worker-a"
    driver.load()
    assert driver.ask(events.ModelLoadAsked("coder", "worker-c")) == "worker-a"
    assert driver.ask(events.ModelLoadAsked("coder", "worker-d", (Place("garage"),), anew=True)) == "worker-d"


def test_an_unload_is_answered_with_the_workers_that_go() -> None:
    driver = loaded()
    assert driver.ask(events.ModelUnloadAsked("coder", even_if_busy=False)) == ["worker-of-coder"]
    assert driver.ask(events.ModelUnloadAsked("coder", even_if_busy=False)) == []


def test_a_release_is_answered_with_the_workers_that_have_to_leave_first() -> None:
    driver = loaded()
    assert driver.ask(events.DeviceReleaseAsked("garage", ("GPU-1",))) == ["worker-of-coder"]
    driver.worker_ended(driver.last(effects.StartWorker).spec)
    assert driver.ask(events.DeviceReleaseAsked("garage", ("GPU-1",))) == []


def test_a_registration_is_answered_with_the_merged_model() -> None:
    driver = BrainDriver()
    driver.handle(events.ModelRegistered(ModelSpec("coder", "file:/coder.gguf"), Origin.PACKAGE, "a test"))
    model = driver.ask(events.ModelRegistered(ModelSpec("coder", "", slots=2), Origin.CALL, "a test"))
    assert (model.spec.source, model.slots) == ("file:/coder.gguf", 2)
    assert driver.ask(events.ModelStateSet("coder", ModelState.RETIRED)).state is ModelState.RETIRED


def test_an_assignment_is_answered_with_its_id_and_the_place_that_it_means() -> None:
    driver = loaded()
    rule = driver.ask(events.AssignmentSet(Assignment("", "coder", "", ("garage",), Mode.PIN)))
    assert rule is driver.state.assignments.get(rule.assignment_id)
    assert rule.places == (Place("garage"),)


def test_an_app_is_answered_with_what_it_keeps() -> None:
    driver = BrainDriver()
    driver.handle(events.AppDefined(App("aider", priority="batch")))
    created = driver.ask(events.AppCreated(App("aider", "ab" * 32)))
    assert (created.priority, created.key_hash) == ("batch", "ab" * 32)


def test_the_first_digest_that_was_found_is_the_answer_to_later_ones() -> None:
    driver = loaded()
    assert driver.ask(events.ModelVerified("file:/models/coder.gguf", "aa")) == "aa"
    assert driver.ask(events.ModelVerified("file:/models/coder.gguf", "bb")) == "aa"
