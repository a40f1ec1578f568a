"""Models change while workers have them loaded."""

import pytest

from llorch.errors import FailedPrecondition, Reason
from orchestratord.core import effects, events
from orchestratord.core.catalog import ModelSpec, Origin
from support.brain_driver import BrainDriver


def loaded_brain() -> tuple[BrainDriver, str]:
    """A worker with the model, and the attempt that runs on it."""
    driver = BrainDriver()
    driver.add_model("coder", slots=1)
    driver.add_node()
    driver.submit()
    driver.load()
    return driver, driver.only(effects.StartRun).attempt_id


def change(driver: BrainDriver, source: str, *aliases: str) -> None:
    spec = ModelSpec("coder", source, aliases=aliases, slots=1)
    driver.handle(events.ModelRegistered(spec, Origin.CALL, "a test"))


@pytest.mark.req("ORCH-1019")
def test_a_model_that_is_busy_can_not_get_another_file() -> None:
    driver, _ = loaded_brain()
    with pytest.raises(FailedPrecondition) as refused:
        change(driver, "file:/models/other.gguf")
    assert refused.value.reason is Reason.MODEL_IN_USE
    assert driver.state.catalog.get("coder").spec.source == "file:/models/coder.gguf"


@pytest.mark.req("ORCH-1019")
def test_a_worker_with_the_old_file_leaves_when_the_model_gets_another() -> None:
    driver, attempt = loaded_brain()
    driver.finish_attempt(attempt)
    change(driver, "file:/models/other.gguf")
    assert driver.only(effects.StopWorker)


def test_another_alias_leaves_the_worker_alone() -> None:
    driver, _ = loaded_brain()
    change(driver, "file:/models/coder.gguf", "gpt-4o")
    assert driver.state.catalog.get("gpt-4o").name == "coder"
    assert not driver.all_of(effects.StopWorker)


def test_a_model_is_deleted_only_when_nobody_uses_it() -> None:
    driver, attempt = loaded_brain()
    with pytest.raises(FailedPrecondition):
        driver.handle(events.ModelDeleted("coder"))
    driver.finish_attempt(attempt)
    driver.handle(events.ModelDeleted("coder"))
    assert driver.only(effects.StopWorker)
    assert driver.state.catalog.find("coder") is None
