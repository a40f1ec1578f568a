"""Models change while workers have them loaded."""

import pytest

from llorch.assignment_mode import Mode
from llorch.errors import FailedPrecondition, Reason
from llorch.split_mode import SplitMode
from orchestratord.core import effects, events
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.model import ModelSpec, Origin
from support.brain_driver import BrainDriver, gpu


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


def test_a_worker_leaves_when_its_model_gets_another_engine() -> None:
    driver, attempt = loaded_brain()
    driver.finish_attempt(attempt)
    spec = ModelSpec("coder", "file:/models/coder.gguf", slots=1, engine="sim")
    driver.handle(events.ModelRegistered(spec, Origin.CALL, "a test"))
    assert driver.only(effects.StopWorker)


def test_another_alias_leaves_the_worker_alone() -> None:
    driver, _ = loaded_brain()
    change(driver, "file:/models/coder.gguf", "gpt-4o")
    assert driver.state.catalog.get("gpt-4o").name == "coder"
    assert not driver.all_of(effects.StopWorker)


def test_a_model_is_deleted_only_when_no_task_uses_it() -> None:
    driver, attempt = loaded_brain()
    with pytest.raises(FailedPrecondition):
        driver.handle(events.ModelDeleted("coder"))
    driver.finish_attempt(attempt)
    driver.handle(events.ModelDeleted("coder"))
    assert driver.only(effects.StopWorker)
    assert driver.state.catalog.find("coder") is None


@pytest.mark.req("ORCH-1014")
def test_what_its_owner_claims_for_a_model_counts_before_its_file_was_ever_seen() -> None:
    driver = BrainDriver()
    driver.add_model("coder", vram_claim_mib=30_000)
    driver.add_node()
    with pytest.raises(FailedPrecondition) as refused:
        driver.submit()
    assert refused.value.reason is Reason.MODEL_FITS_NO_DEVICE
    assert "30000 MiB" in refused.value.message


@pytest.mark.req("ORCH-1014", "ORCH-1015")
def test_a_model_that_has_no_room_beside_those_that_stay_loaded_is_refused_and_no_task_waits_for_ever() -> None:
    driver = BrainDriver()
    driver.add_model("kept", vram_claim_mib=20_000)
    driver.add_model("coder", vram_claim_mib=10_000, split=SplitMode.NONE)
    driver.add_node("garage", gpu(), gpu("GPU-2", total_mib=8000, index=1, name="RTX 3060"))
    keep = Assignment("", model="kept", app="", targets=("garage/0",), mode=Mode.PIN, keep_loaded=True)
    driver.handle(events.AssignmentSet(keep))
    driver.load("kept")
    with pytest.raises(FailedPrecondition) as refused:
        driver.submit("coder")
    assert refused.value.reason is Reason.MODEL_FITS_NO_DEVICE
    assert "leave no room" in refused.value.message


@pytest.mark.parametrize("origin", [Origin.FILE, Origin.PACKAGE, Origin.NODE])
def test_a_model_that_is_described_anew_at_each_start_was_registered_then(origin: Origin) -> None:
    driver = BrainDriver()
    driver.handle(events.RecordsFound((), at_ms=1_700_000_000_000))
    driver.handle(events.ModelRegistered(ModelSpec("coder", "file:/models/coder.gguf"), origin, "a test"))
    assert driver.state.catalog.get("coder").registered_ms == 1_700_000_000_000


def test_a_rule_of_the_settings_file_was_set_at_the_start() -> None:
    driver = BrainDriver()
    driver.handle(events.RecordsFound((), at_ms=1_700_000_000_000))
    driver.add_model("coder")
    draft = Assignment("rule", "coder", "", ("garage",), Mode.PIN, origin=Origin.FILE)
    assert driver.ask(events.AssignmentSet(draft)).created_at_ms == 1_700_000_000_000
