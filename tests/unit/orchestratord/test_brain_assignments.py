"""Rules that are set take hold at once: for tasks that wait, for what is loaded, and after a restart."""

from dataclasses import replace

import pytest

from llorch.assignment_mode import Mode
from llorch.errors import FailedPrecondition, LlorchError, NotFound, PermissionDenied, Reason, Unavailable
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.decision import DecisionRecord, Outcome
from orchestratord.core.facts.fleet import Leaving, Snapshot, WorkerReported
from orchestratord.core.facts.model import Origin
from orchestratord.core.facts.rules import OverridePolicy, Wishes
from orchestratord.core.facts.task import TaskError, TaskState
from orchestratord.core.state import BrainConfig
from support.brain_driver import GIB, BrainDriver, gpu

pytestmark = pytest.mark.req("ORCH-1012")

BIG, SMALL = gpu("GPU-big"), gpu("GPU-small", 12 * GIB, name="RTX 3060", index=1)
STAGED = {"file:/models/coder.gguf": 4096, "file:/models/writer.gguf": 4096}


def brain(**config: object) -> BrainDriver:
    driver = BrainDriver(BrainConfig(**config))  # type: ignore[arg-type]  # tests name fields
    driver.add_model("coder", size_mib=4096, vram_claim_mib=6000, slots=1)
    driver.add_model("writer", size_mib=4096, vram_claim_mib=6000, slots=1)
    driver.add_node("garage", BIG, SMALL, staged=STAGED)
    driver.forget_effects()
    return driver


def draft(mode: Mode, *targets: str, **fields: object) -> Assignment:
    given: dict[str, object] = {"assignment_id": "", "model": "coder", "app": "", "targets": targets, "mode": mode}
    return Assignment(**(given | fields))  # type: ignore[arg-type]  # tests name fields


def assign(driver: BrainDriver, mode: Mode, *targets: str, **fields: object) -> None:
    driver.handle(events.AssignmentSet(draft(mode, *targets, **fields), at_ms=7))


def add_app(driver: BrainDriver, name: str) -> None:
    driver.handle(events.AppCreated(App(name, key_hash=name)))


def devices_started(driver: BrainDriver) -> list[tuple[str, ...]]:
    return [start.spec.device_ids for start in driver.all_of(effects.StartWorker)]


def error_of(driver: BrainDriver, task_id: str) -> TaskError:
    terminal = driver.task(task_id).terminal
    assert isinstance(terminal, TaskError)
    return terminal


def test_a_pinned_model_is_loaded_where_it_is_pinned() -> None:
    driver = brain()
    assign(driver, Mode.PIN, "garage/3060")
    driver.submit()
    assert devices_started(driver) == [("GPU-small",)]


def test_a_rule_is_kept_by_id_of_the_card_with_its_time() -> None:
    driver = brain()
    assign(driver, Mode.PIN, "garage/3060")
    (kept,) = driver.only(effects.PersistChange).changes
    assert kept.before is None
    assert isinstance(kept.after, Assignment)
    assert (kept.after.record_key, kept.after.created_at_ms) == ("coder.pin", 7)
    assert kept.after.known_places[0].device_ids == ("GPU-small",)


def test_setting_it_again_changes_it_and_deleting_takes_it_away() -> None:
    driver = brain()
    assign(driver, Mode.PIN, "garage/3060", assignment_id="mine")
    assign(driver, Mode.PIN, "garage/3090", assignment_id="mine")
    driver.handle(events.AssignmentDeleted("mine"))
    first, second, third = (effect.changes[0] for effect in driver.all_of(effects.PersistChange))
    assert (second.before, third.before, third.after) == (first.after, second.after, None)
    with pytest.raises(NotFound, match="llorch assignments"):
        driver.handle(events.AssignmentDeleted("mine"))


def test_a_refused_rule_changes_nothing() -> None:
    driver = brain()
    assign(driver, Mode.PIN, "garage/3060")
    driver.forget_effects()
    with pytest.raises(FailedPrecondition) as refused:
        assign(driver, Mode.AVOID, "garage/3060")
    assert refused.value.reason is Reason.ASSIGNMENT_CONFLICT
    assert driver.effects == []
    assert len(driver.state.assignments) == 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model": "codr"}, Reason.MODEL_NOT_FOUND),
        ({"app": "unknown"}, Reason.APP_NOT_FOUND),
        ({"targets": ("garage/4090",)}, Reason.DEVICE_NOT_FOUND),
    ],
)
def test_names_that_mean_nothing_are_refused(fields: dict[str, object], reason: Reason) -> None:
    driver = brain()
    with pytest.raises(LlorchError) as refused:
        driver.handle(events.AssignmentSet(replace(draft(Mode.PIN, "garage"), **fields)))  # type: ignore[arg-type]  # a table
    assert refused.value.reason is reason


def test_a_worker_that_is_misplaced_from_now_on_leaves_when_it_is_done() -> None:
    driver = brain()
    task_id = driver.submit()
    spec = driver.load()
    assert spec.device_ids == ("GPU-big",)
    assign(driver, Mode.PIN, "garage/3060")
    assert driver.all_of(effects.StopWorker) == []
    waiting = driver.submit()
    assert devices_started(driver) == [("GPU-big",), ("GPU-small",)]
    attempt = driver.task(task_id).attempt
    assert attempt is not None
    driver.finish_attempt(attempt.attempt_id)
    stop = driver.only(effects.StopWorker)
    assert (stop.worker_id, stop.why) == (spec.worker_id, Leaving.CHANGED)
    assert driver.task(waiting).state is TaskState.QUEUED


def test_a_rule_for_an_app_sorts_its_waiting_tasks_anew_and_they_keep_their_places() -> None:
    driver = brain()
    add_app(driver, "aider")
    driver.submit()
    driver.load()
    first, second = driver.submit(app="aider"), driver.submit()
    assign(driver, Mode.PIN, "garage/3060", model="", app="aider")
    assert devices_started(driver) == [("GPU-big",), ("GPU-small",)], "the app's task needs a worker of its own"
    assert driver.state.queue[first].arrival < driver.state.queue[second].arrival
    small = driver.last(effects.StartWorker).spec
    driver.handle(events.WorkerStartAccepted(small.worker_id, 2))
    driver.worker_ready(small)
    running = driver.task(first).attempt
    assert running is not None
    assert running.worker_id == small.worker_id
    assert driver.task(second).state is TaskState.QUEUED


def test_a_pinned_task_neither_blocks_others_nor_goes_astray() -> None:
    driver = brain()
    driver.submit()
    spec = driver.load()
    pinned = driver.submit(wishes=Wishes(pin=("garage/3060",)))
    free = driver.submit()
    attempt = next(iter(driver.state.attempts))
    driver.finish_attempt(attempt)
    assert driver.task(free).state is TaskState.RUNNING, "it overtakes the one that may not use this worker"
    assert driver.task(pinned).state is TaskState.QUEUED
    assert driver.task(free).attempt.worker_id == spec.worker_id  # type: ignore[union-attr]  # it runs


def test_a_task_that_rules_leave_no_device_is_refused_at_once_with_the_rule() -> None:
    driver = brain()
    assign(driver, Mode.PIN, "garage/3060")
    with pytest.raises(FailedPrecondition, match="rule 'coder only on garage/RTX 3060'") as refused:
        driver.submit(wishes=Wishes(avoid=("garage/3060",)))
    assert refused.value.reason is Reason.PIN_EXCLUDES_ALL
    driver.submit("writer")


def test_a_task_whose_place_is_lost_while_it_waits_hears_it() -> None:
    driver = brain()
    assign(driver, Mode.PIN, "garage/3060")
    driver.submit()
    spec = driver.load()
    waiting = driver.submit()
    ended = WorkerReported(spec, WorkerState.EXITED, failure=(Reason.WORKER_LOST, "its card is gone"))
    driver.report(snapshot=Snapshot(full=True, devices=(BIG,), workers=(ended,), staged=STAGED))
    error = error_of(driver, waiting)
    assert (error.reason, error.retryable) == (Reason.NO_DEVICE, True), "the card may be put back"
    assert "rule 'coder only on garage/GPU-small (not there)'" in error.message


def test_with_a_fallback_it_runs_elsewhere_when_the_place_is_lost() -> None:
    driver = brain()
    assign(driver, Mode.PIN, "garage/3060", fallback=True)
    driver.report(snapshot=Snapshot(full=True, devices=(BIG,), staged=STAGED))
    driver.submit()
    assert devices_started(driver) == [("GPU-big",)]
    record = next(driver.state.decisions.newest_first())
    assert record.fallback_used


@pytest.mark.parametrize(
    ("policy", "wishes", "devices"),
    [
        (OverridePolicy.WITHIN, Wishes(pin=("garage",)), ("GPU-small",)),
        (OverridePolicy.ANY, Wishes(pin=("garage/3090",)), ("GPU-big",)),
        (OverridePolicy.NONE, Wishes(), ("GPU-small",)),
    ],
)
def test_policy_says_what_a_request_may_wish(policy: OverridePolicy, wishes: Wishes, devices: tuple[str, ...]) -> None:
    driver = brain(override_policy=policy)
    assign(driver, Mode.PIN, "garage/3060")
    driver.submit(wishes=wishes)
    assert devices_started(driver) == [devices]


def test_where_policy_forbids_wishes_they_are_refused_by_name() -> None:
    driver = brain(override_policy=OverridePolicy.NONE)
    with pytest.raises(PermissionDenied, match="placement_overrides"):
        driver.submit(wishes=Wishes(pin=("garage",)))


def test_a_model_that_is_to_be_kept_is_loaded_although_no_task_asks() -> None:
    driver = brain()
    assign(driver, Mode.PREFER, "garage/3060", keep_loaded=True)
    assert devices_started(driver) == [("GPU-small",)]


# Rules of the settings file.


def test_a_rule_of_the_file_waits_for_its_node() -> None:
    driver = brain()
    assign(driver, Mode.PIN, "attic/3060", origin=Origin.FILE)
    assert driver.all_of(effects.PersistChange) == [], "the file keeps it"
    with pytest.raises(Unavailable, match="attic/3060 is not there"):
        driver.submit()
    driver.add_node("attic", replace(SMALL, device_id="GPU-attic"), staged=STAGED)
    driver.submit()
    assert driver.only(effects.StartWorker).node_id == "attic"


def test_a_rule_of_the_file_is_changed_in_the_file() -> None:
    driver = brain()
    assign(driver, Mode.PIN, "garage/3060", origin=Origin.FILE, assignment_id="mine")
    for attempt in (
        events.AssignmentDeleted("mine"),
        events.AssignmentSet(draft(Mode.PIN, "garage", assignment_id="mine")),
    ):
        with pytest.raises(FailedPrecondition, match="settings file"):
            driver.handle(attempt)


# Decisions are kept.


@pytest.mark.req("ORCH-1011")
def test_every_decision_is_kept_with_its_reasons() -> None:
    driver = brain()
    assign(driver, Mode.PIN, "garage/3060")
    task_id = driver.submit()
    driver.load()
    run, load = list(driver.state.decisions.newest_first())[:2]
    assert (load.outcome, load.pinned, load.removed) == (Outcome.CHOSEN, True, {"pinned": 1})
    assert load.candidates[0].device_ids == ("GPU-small",)
    assert [term.name for term in load.candidates[0].terms] == ["load", "prefill", "decode", "pressure"]
    assert (run.task_id, run.candidates[0].worker_id) == (task_id, driver.last(effects.StartWorker).spec.worker_id)
    kept = [effect.after for effect in driver.all_of(effects.PersistRecord) if isinstance(effect.after, DecisionRecord)]
    assert kept[-1] == run
