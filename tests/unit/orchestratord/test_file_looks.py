"""A model of the settings file is known to have no file as soon as the machine that should have it is there."""

import pytest

from llorch.errors import Reason
from orchestratord.core import effects, events
from orchestratord.core.facts.decision import Outcome
from orchestratord.core.facts.model import ModelSpec, Origin
from orchestratord.core.facts.task import TaskError
from orchestratord.core.placement.explain import explain
from orchestratord.core.placement.sentences import sentence
from orchestratord.views import models as views
from support.brain_driver import BrainDriver, gpu

pytestmark = pytest.mark.req("ORCH-1019")

LOST, FOUND = "file:/nope.gguf", "file:/there.gguf"
WHY = "/nope.gguf: there is no such file"


def brain(**sources: str) -> BrainDriver:
    driver = BrainDriver()
    for name, source in sources.items():
        driver.handle(events.ModelRegistered(ModelSpec(name, source), Origin.FILE, "settings file"))
    return driver


def asked(driver: BrainDriver) -> list[tuple[str, str]]:
    return [(one.node_id, one.source) for one in driver.all_of(effects.StageModel)]


def missing(driver: BrainDriver, source: str = LOST, node_id: str = "garage") -> None:
    driver.handle(events.StagingFailed(node_id, source, Reason.MODEL_FILE_MISSING, WHY))


def test_a_node_that_comes_is_asked_for_the_files_one_after_the_other() -> None:
    driver = brain(lost=LOST, again=LOST, found=FOUND, remote="hf:org/repo:Q4_K_M")
    driver.add_node()
    assert asked(driver) == [("garage", LOST)]
    missing(driver)
    assert asked(driver) == [("garage", LOST), ("garage", FOUND)]
    driver.handle(events.ModelStaged("garage", FOUND, 4096))
    assert len(asked(driver)) == 2
    assert driver.state.catalog.get("found").size_mib == 4096


def test_what_is_not_there_is_shown_and_explained_as_that() -> None:
    driver = brain(lost=LOST)
    driver.add_node()
    missing(driver)
    assert views.view(driver.state, driver.state.catalog.get("lost")).problems == (f"{WHY} (on garage)",)
    record = explain(driver.state, "lost", "", 0, 0)
    assert record.outcome is Outcome.REFUSED
    assert sentence(record, is_dry_run=True).startswith(f"can't be placed: {WHY}")
    assert "lost" not in driver.state.load_failures, "no load was tried"


def test_another_node_may_have_it() -> None:
    driver = brain(lost=LOST)
    driver.add_node()
    missing(driver)
    driver.add_node("attic", gpu("GPU-attic"))
    driver.handle(events.ModelStaged("attic", LOST, 4096))
    record = explain(driver.state, "lost", "", 0, 0)
    assert (record.outcome, record.candidates[0].node_id) == (Outcome.CHOSEN, "attic")


def test_a_file_that_one_node_does_not_have_is_not_why_it_fits_nowhere() -> None:
    driver = brain(lost=LOST)
    driver.add_node("attic", gpu("GPU-attic", total_mib=8_000))
    missing(driver, node_id="attic")
    driver.add_node("garage", gpu(total_mib=12_000))
    driver.handle(events.ModelStaged("garage", LOST, 40_000))
    told = sentence(explain(driver.state, "lost", "", 0, 0), is_dry_run=True)
    assert told.startswith("can't be placed: model 'lost' needs about ")
    assert f"attic excluded: it could not be loaded there: {WHY}" in told


def test_a_node_that_is_only_busy_has_said_nothing_of_the_file() -> None:
    driver = brain(lost=LOST)
    driver.add_node()
    driver.handle(events.StagingFailed("garage", LOST, Reason.UPSTREAM_UNAVAILABLE, "restarting"))
    assert explain(driver.state, "lost", "", 0, 0).outcome is Outcome.CHOSEN


def test_a_task_has_it_looked_for_again_and_fails_by_what_is_found_then() -> None:
    driver = brain(lost=LOST)
    driver.add_node()
    missing(driver)
    task_id = driver.submit("lost")
    assert asked(driver) == [("garage", LOST), ("garage", LOST)]
    missing(driver)
    terminal = driver.task(task_id).terminal
    assert isinstance(terminal, TaskError)
    assert (terminal.reason, terminal.message) == (Reason.MODEL_FILE_MISSING, f"{WHY} (on garage)")


def test_a_model_that_a_call_has_added_was_looked_at_then() -> None:
    driver = BrainDriver()
    driver.add_model("coder")
    driver.add_node()
    assert asked(driver) == []
