"""Why rules are not met, and which are refused because they never could be."""

from dataclasses import replace
from typing import Any

import pytest

from llorch.assignment_mode import Mode
from llorch.errors import FailedPrecondition, Reason, Unavailable
from llorch.split_mode import SplitMode
from orchestratord.core import effects, events
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.fleet import NodeState, Pool, Snapshot
from orchestratord.core.facts.model import ModelSpec, Origin
from orchestratord.core.facts.targets import Place
from orchestratord.core.facts.task import TaskError
from orchestratord.core.placement.rule_problems import RuleProblems, left_behind
from support.brain_driver import GIB, BrainDriver, gpu

pytestmark = pytest.mark.req("ORCH-1012")

LARGE, SMALL = gpu("GPU-3090", 24 * GIB), gpu("GPU-3060", 12 * GIB, index=1, name="RTX 3060")


def brain() -> BrainDriver:
    """`big` takes 20 GiB, `small` 5; garage has cards of 24 and 12 GiB."""
    driver = BrainDriver()
    driver.add_node("garage", LARGE, SMALL)
    driver.add_model("big", vram_claim_mib=20 * GIB, context=4096, slots=1)
    driver.add_model("small", vram_claim_mib=5 * GIB, context=4096, slots=1)
    driver.handle(events.AppCreated(App("aider", "0f" * 32)))
    return driver


def assign(driver: BrainDriver, model: str, *targets: str, mode: Mode = Mode.PIN, **options: Any) -> list[str]:
    """The problems of the rule, once it is set."""
    fields: dict[str, Any] = {"assignment_id": "", "app": ""}
    draft = Assignment(model=model, targets=targets, mode=mode, **(fields | options))
    rule = driver.ask(events.AssignmentSet(draft))
    return problems(driver, rule.assignment_id)


def problems(driver: BrainDriver, rule_id: str) -> list[str]:
    return RuleProblems(driver.state).of(driver.state.assignments.get(rule_id))


def changed(driver: BrainDriver, name: str, **options: Any) -> None:
    spec = ModelSpec(name, f"file:/models/{name}.gguf", **({"context": 4096, "slots": 1} | options))
    driver.handle(events.ModelRegistered(spec, Origin.CALL, "a test"))


# Models that are too large.


def test_a_pin_to_a_card_that_could_never_hold_the_model_is_refused_with_what_it_needs() -> None:
    driver = brain()
    with pytest.raises(FailedPrecondition) as refused:
        assign(driver, "big", "garage/3060")
    assert refused.value.reason is Reason.MODEL_FITS_NO_DEVICE
    assert refused.value.message == (
        "'big.pin' (big only on garage/RTX 3060) could never be met: model 'big' needs 20480 MiB (its "
        "vram_claim), and the largest place that is there of those, garage/RTX 3060, holds 12288 MiB when empty; "
        "nothing was set; lower its vram_claim, or name a larger place, or several cards together"
    )
    assert len(driver.state.assignments) == 0


@pytest.mark.parametrize("targets", [("garage/3090",), ("garage/3060", "garage/3090"), ("garage",), ("garage/0+1",)])
def test_a_pin_of_which_one_place_is_large_enough_is_set(targets: tuple[str, ...]) -> None:
    assert assign(brain(), "big", *targets) == []


def test_several_cards_hold_a_model_together_unless_it_is_never_split() -> None:
    driver = brain()
    changed(driver, "big", vram_claim_mib=30 * GIB)
    assert assign(driver, "big", "garage") == []
    driver.handle(events.AssignmentDeleted("big.pin"))
    driver.handle(events.ModelDeleted("big"))
    driver.add_model("big", vram_claim_mib=30 * GIB, split=SplitMode.NONE)
    with pytest.raises(FailedPrecondition, match="garage, holds 24576 MiB"):
        assign(driver, "big", "garage")


def test_what_is_full_released_drained_or_silent_now_is_no_reason_to_refuse() -> None:
    driver = brain()
    driver.handle(events.ModelLoadAsked("big", "worker-1"))
    driver.handle(events.DeviceReleaseAsked("garage", ("GPU-3090",)))
    driver.state.fleet.nodes["garage"].state = NodeState.SUSPECT
    assert assign(driver, "big", "garage/3090") == []
    in_use = gpu("GPU-3090", 24 * GIB, others_mib=20 * GIB)
    driver.report(snapshot=Snapshot(full=False, devices=(in_use,)))
    assert assign(driver, "big", "garage/3090") == []


def test_where_a_place_may_still_come_the_rule_is_set_and_the_problem_told() -> None:
    driver = brain()
    driver.add_node("attic", gpu("GPU-attic", 48 * GIB))
    driver.state.fleet.nodes["attic"].state = NodeState.LOST
    assert assign(driver, "big", "garage/3060", "attic") == ["node 'attic' is lost"]
    driver.handle(events.AssignmentDeleted("big.pin"))
    changed(driver, "big", vram_claim_mib=60 * GIB)
    lost, large = assign(driver, "big", "garage/3060", "attic")
    assert lost == "node 'attic' is lost"
    assert "needs 61440 MiB (its vram_claim)" in large
    assert "attic, holds 49152 MiB" in large


@pytest.mark.parametrize("mode", [Mode.PREFER, Mode.AVOID])
def test_only_a_pin_can_be_too_narrow(mode: Mode) -> None:
    assert assign(brain(), "big", "garage/3060", mode=mode) == []


def test_a_model_of_which_nothing_is_known_may_be_pinned_anywhere() -> None:
    driver = brain()
    driver.add_model("unknown")
    assert assign(driver, "unknown", "garage/3060") == []


def test_with_a_context_that_is_left_open_the_smallest_counts() -> None:
    driver = brain()
    driver.add_model("open", 9 * GIB)
    assert assign(driver, "open", "garage/3060") == []
    driver.add_model("set", 9 * GIB, context=32768)
    with pytest.raises(FailedPrecondition, match="with context 32768"):
        assign(driver, "set", "garage/3060")


def test_a_rule_of_the_settings_file_is_told_and_never_refused() -> None:
    (told,) = assign(brain(), "big", "garage/3060", origin=Origin.FILE, assignment_id="of-file")
    assert "holds 12288 MiB when empty" in told


def test_a_model_that_grows_beyond_its_pin_is_warned_of() -> None:
    driver = brain()
    assert assign(driver, "small", "garage/3060") == []
    changed(driver, "small", vram_claim_mib=13 * GIB)
    (warning,) = RuleProblems(driver.state).of_model("small")
    assert warning.startswith(
        "'small.pin' (small only on garage/RTX 3060): model 'small' needs 13312 MiB (its vram_claim)"
    )
    assert RuleProblems(driver.state).of_model("big") == []


def test_models_that_can_not_all_stay_loaded_are_told_of() -> None:
    driver = brain()
    assert assign(driver, "small", "garage/3060", keep_loaded=True) == []
    changed(driver, "other", vram_claim_mib=8 * GIB)
    (told,) = assign(driver, "other", "garage/3060", keep_loaded=True)
    assert told == (
        "to keep other and small loaded takes about 13312 MiB, and all places for that hold 12288 MiB together"
    )
    assert problems(driver, "small.pin") == [told]


def test_more_replicas_than_all_cards_could_hold_are_told_of() -> None:
    driver = brain()
    (told,) = assign(driver, "big", "garage", mode=Mode.PREFER, replicas_min=2, replicas_max=2)
    assert told.startswith("to keep big loaded takes about 40960 MiB, and all places for that hold 36864 MiB")


def test_a_task_that_is_refused_for_a_pin_hears_of_the_rule() -> None:
    driver = brain()
    assign(driver, "small", "garage/3060")
    changed(driver, "small", vram_claim_mib=13 * GIB)
    with pytest.raises(FailedPrecondition) as refused:
        driver.submit("small")
    assert refused.value.reason is Reason.MODEL_FITS_NO_DEVICE
    assert (
        "the largest device that is left by rule 'small only on garage/RTX 3060' holds 12288 MiB when empty; change "
        "that, lower its vram_claim" in refused.value.message
    )


def test_a_task_that_fits_nowhere_without_rules_hears_of_none() -> None:
    driver = brain()
    changed(driver, "small", vram_claim_mib=50 * GIB)
    with pytest.raises(FailedPrecondition, match="the largest place, 2 devices together, holds 36864 MiB when empty"):
        driver.submit("small")


def test_what_a_model_needs_is_told_alike_by_whatever_refuses_it() -> None:
    driver = brain()
    driver.add_model("open", 30 * GIB)
    with pytest.raises(FailedPrecondition) as of_the_rule:
        assign(driver, "open", "garage/3060")
    with pytest.raises(FailedPrecondition) as of_the_load:
        driver.ask(events.ModelLoadAsked("open", "load-1", places=(Place("garage", ("GPU-3060",)),)))
    told = of_the_load.value.message.partition(";")[0]
    assert told.endswith(" MiB with context 2048, the least that is tried, and 4 slots")
    assert f": {told}, and the largest place" in of_the_rule.value.message


@pytest.mark.parametrize(
    ("options", "remedy"), [({"vram_claim_mib": 50 * GIB}, "vram_claim"), ({}, "context or slots")]
)
def test_the_remedy_is_what_decides_how_much_a_model_needs(options: dict[str, Any], remedy: str) -> None:
    driver = brain()
    driver.add_model("huge", 50 * GIB, slots=1, **options)
    with pytest.raises(FailedPrecondition, match=f"when empty; lower its {remedy}, ") as refused:
        driver.submit("huge")
    assert (" and 1 slot;" in refused.value.message) is not bool(options)


def test_a_target_that_is_too_small_is_named_as_one() -> None:
    driver = brain()
    with pytest.raises(FailedPrecondition, match="largest device that is left by the target garage/RTX 3060 holds"):
        driver.ask(events.ModelLoadAsked("big", "load-1", places=(Place("garage", ("GPU-3060",)),)))


def test_the_largest_device_of_those_that_run_the_engine_is_told_as_that() -> None:
    driver = BrainDriver()
    driver.add_node("garage", replace(LARGE, engines=("other",)), replace(SMALL, engines=("llama.cpp",)))
    driver.add_model("big", vram_claim_mib=20 * GIB, engine="llama.cpp")
    with pytest.raises(FailedPrecondition, match="the largest device that runs its engine holds 12288 MiB"):
        driver.submit("big")


# What rules name and is not there.


def test_rules_that_name_a_model_that_was_deleted_stay_and_are_marked() -> None:
    driver = brain()
    assign(driver, "small", "garage/3060")
    assign(driver, "small", "garage", app="aider", mode=Mode.PREFER)
    driver.handle(events.AppUpdated(App("aider", models={"gpt-4o-mini": "small"})))
    assert left_behind(driver.state, model="small") == []
    driver.handle(events.ModelDeleted("small"))
    pin, prefer, name = left_behind(driver.state, model="small")
    assert pin == (
        "'small.pin' (small only on garage/RTX 3060) still names model 'small', and holds again for the next one of "
        "this name; to be rid of it: llorch unassign small.pin"
    )
    assert "small for aider preferably on garage" in prefer
    assert name == (
        "app 'aider' still means model 'small' by 'gpt-4o-mini': such requests are refused until there is one again"
    )
    assert problems(driver, "small.pin") == ["no model is called 'small' now"]
    changed(driver, "small")
    assert problems(driver, "small.pin") == []


def test_rules_that_name_an_app_that_was_deleted_stay_and_are_marked() -> None:
    driver = brain()
    assign(driver, "", "garage", app="aider", mode=Mode.PREFER)
    driver.handle(events.AppDeleted("aider"))
    (told,) = left_behind(driver.state, app="aider")
    assert "still names app 'aider'" in told
    assert problems(driver, "app.aider.prefer") == ["no app is called 'aider' now"]


def test_rules_of_a_node_that_is_not_there_any_more_are_marked() -> None:
    driver = brain()
    driver.add_node("attic", gpu("GPU-attic"))
    assign(driver, "small", "attic/3090")
    driver.let_pass(1)
    driver.state.fleet.nodes["attic"].state = NodeState.LOST
    assert problems(driver, "small.pin") == ["node 'attic' is lost"]
    driver.handle(events.NodeForgotten("attic"))
    assert problems(driver, "small.pin") == ["node 'attic' is not there"]
    with pytest.raises(Unavailable, match=r"rule 'small only on attic/GPU-attic \(not there\)'"):
        driver.submit("small")


def test_rules_of_a_card_or_a_pool_that_is_not_there_any_more_are_marked() -> None:
    driver = brain()
    pool = Pool("fast", "garage", ("GPU-3060",))
    driver.report(snapshot=Snapshot(full=True, devices=(LARGE, SMALL), pools=(pool,)))
    assign(driver, "small", "garage/3060", "fast")
    driver.report(snapshot=Snapshot(full=True, devices=(LARGE,)))
    assert problems(driver, "small.pin") == [
        "node 'garage' has no GPU GPU-3060 any more",
        "node 'garage' has no pool 'fast' any more",
    ]


def test_a_place_of_the_settings_file_that_was_never_seen_is_told() -> None:
    told = assign(brain(), "small", "shed/3090", origin=Origin.FILE, assignment_id="of-file")
    assert told == ["no machine and no pool called 'shed' has ever connected"]


def test_looking_for_problems_changes_nothing() -> None:
    driver = brain()
    assign(driver, "small", "garage/3060", keep_loaded=True)
    driver.forget_effects()
    before = repr(driver.state)
    problems(driver, "small.pin")
    assert repr(driver.state) == before
    assert not driver.all_of(effects.PersistChange)
    assert not any(isinstance(task.terminal, TaskError) for task in driver.state.tasks.values())
