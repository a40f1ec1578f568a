"""A brain that begins with what an earlier life has kept."""

from dataclasses import fields

import pytest

from llorch.errors import NotFound, Reason
from llorch.finish_reason import FinishReason
from orchestratord.core import effects, events
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.model import ModelRecord, ModelSpec, ModelState, SourceFacts
from orchestratord.core.facts.task import Stopped, TaskRequest, TaskState
from orchestratord.core.lives import restoring
from orchestratord.store import codec
from orchestratord.store.kinds import KINDS
from support.brain_driver import BrainDriver

CODER = ModelRecord("coder", ModelState.ACTIVE, ModelSpec("coder", "file:/models/coder.gguf", slots=1), "call", 7)
ENDED = Stopped(FinishReason.CANCELLED, 1, 2)


def durable(task_id: str, **options: object) -> TaskRequest:
    fields: dict[str, object] = {"model": "coder", "payload": b"", "content_digest": "digest", "seed": 1}
    return TaskRequest(task_id, durable=True, **(fields | options))  # type: ignore[arg-type]  # tests name fields


def restarted(*tasks: events.TaskRestored) -> BrainDriver:
    driver = BrainDriver()
    driver.handle(events.RecordsFound((CODER, App("aider", "0f" * 32))))
    for task in tasks:
        driver.handle(task)
    return driver


def test_every_kind_of_record_can_be_kept_and_restored() -> None:
    assert {kind.type for kind in KINDS} == set(restoring._RESTORE)
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    for kind in KINDS:
        codec._codec(kind.type)  # raises for a field that can't be kept


def test_models_and_apps_are_there_again() -> None:
    state = restarted().state
    assert state.catalog.get("coder").slots == 1
    assert state.apps.by_key_hash("0f" * 32) is not None


@pytest.mark.req("ORCH-1009")
def test_tasks_wait_again_in_their_order_and_run_when_a_node_comes() -> None:
    driver = restarted(*(events.TaskRestored(durable(f"task-{name}"), 5.0) for name in "ba"))
    assert driver.state.queue.waiting_for("coder") == ["task-b", "task-a"]
    assert not driver.all_of(effects.OpenLog)
    assert not driver.all_of(effects.PersistTask)
    driver.add_node()
    driver.load()
    assert driver.only(effects.StartRun).request.task_id == "task-b"


def test_a_deadline_goes_on_from_when_the_task_was_accepted() -> None:
    driver = restarted(events.TaskRestored(durable("task-1", deadline_s=10.0), 8.0))
    driver.advance(1.5)
    assert driver.task("task-1").state is TaskState.QUEUED
    driver.advance(1.0)
    assert driver.task("task-1").state is TaskState.EXPIRED


def test_a_repeated_request_is_still_the_same_task() -> None:
    driver = restarted(events.TaskRestored(durable("task-1", request_id="r"), 5.0))
    driver.add_node()
    driver.submit(task_id="task-2", request_id="r", durable=True)
    assert list(driver.state.tasks) == ["task-1"]


def test_a_task_whose_model_is_gone_ends_with_the_reason() -> None:
    driver = restarted(events.TaskRestored(durable("task-1", model="gone"), 5.0))
    terminal = driver.only(effects.PersistTerminal).terminal
    assert getattr(terminal, "reason", None) is Reason.MODEL_NOT_FOUND


def test_a_finished_task_is_kept_for_the_rest_of_its_time() -> None:
    driver = restarted(events.TaskRestored(durable("task-1"), 700.0, (TaskState.CANCELLED, ENDED, 590.0)))
    assert driver.task("task-1").terminal == ENDED
    driver.advance(9.0)
    assert driver.all_of(effects.ForgetTask) == []
    driver.advance(2.0)
    assert driver.only(effects.ForgetTask).task_id == "task-1"
    with pytest.raises(NotFound) as refused:
        driver.state.task("task-1")
    assert refused.value.reason is Reason.EXPIRED


def test_what_was_learnt_of_a_file_is_kept() -> None:
    driver = restarted()
    driver.add_node()
    driver.stage()
    kept = [effect for effect in driver.all_of(effects.PersistRecord) if effect.after]
    (changed,) = (effect for effect in kept if isinstance(effect.after, SourceFacts))
    again = restarted()
    again.handle(events.RecordsFound((changed.after,)))  # type: ignore[arg-type]  # it is there, see above
    assert again.state.catalog.get("coder").size_mib == 4096


def test_no_record_has_a_field_that_a_store_would_mistake_for_a_secret() -> None:
    """Hashes are kept on purpose; keys and tokens never are."""
    names = {field.name for kind in KINDS for field in fields(kind.type)}
    assert {name for name in names if "token" in name or name.endswith("key")} <= {
        "tokens",
        "warm_tokens",
        "max_tokens_per_minute",
    }
