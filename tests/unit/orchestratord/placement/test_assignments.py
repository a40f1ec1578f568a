"""Rules: what they say together, and what is refused because it contradicts itself."""

from dataclasses import fields

import pytest

from llorch.assignment_mode import Mode
from llorch.errors import FailedPrecondition, InvalidArgument, Reason
from llorch.options.task import PLACEMENT, WISHES
from orchestratord.core.facts.assignments import LoadingRules, describe
from orchestratord.core.facts.mode_effects import EFFECTS
from orchestratord.core.facts.model import Origin
from orchestratord.core.facts.rules import NO_RULES, Lane, Overrides, Rules, Wishes, rules_of
from orchestratord.core.facts.targets import resolve
from support.placement import BIG, SMALL, Scene, card

pytestmark = pytest.mark.req("ORCH-1012")


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.node("garage")
    scene.node("attic", card("GPU-attic", "RTX 4090"))
    return scene


def rules(scene: Scene, model: str = "coder", app: str = "", overrides: Overrides = Overrides()) -> Rules:  # noqa: B008  frozen
    return rules_of(scene.state.assignments, scene.state.fleet, Lane(model, app, overrides))


def admitted(scene: Scene, held: Rules) -> set[str]:
    """Single devices that the rules leave."""
    return {
        device_id
        for node in scene.state.fleet.nodes.values()
        for device_id in node.devices
        if held.admits(node, (device_id,))
    }


def test_without_rules_everything_goes(scene: Scene) -> None:
    assert rules(scene) is NO_RULES
    assert admitted(scene, NO_RULES) == {BIG.device_id, SMALL.device_id, "GPU-attic"}


def test_a_pin_leaves_its_places_alone(scene: Scene) -> None:
    scene.rule(Mode.PIN, "garage/3090", "attic")
    assert admitted(scene, rules(scene)) == {BIG.device_id, "GPU-attic"}
    assert rules(scene, "writer") == NO_RULES


def test_an_avoided_place_is_left_out(scene: Scene) -> None:
    scene.rule(Mode.AVOID, "garage")
    assert admitted(scene, rules(scene)) == {"GPU-attic"}


def test_pins_for_the_model_and_for_the_app_hold_together(scene: Scene) -> None:
    scene.rule(Mode.PIN, "garage")
    scene.rule(Mode.PIN, "garage/3060", "attic", model="", app="aider")
    assert admitted(scene, rules(scene, app="aider")) == {SMALL.device_id}
    assert admitted(scene, rules(scene, app="another")) == {BIG.device_id, SMALL.device_id}


def test_a_pin_for_the_model_of_the_app_stands_in_the_stead_of_the_others(scene: Scene) -> None:
    scene.rule(Mode.PIN, "garage/3090", app="aider")
    scene.rule(Mode.PIN, "attic")
    scene.rule(Mode.AVOID, "garage", model="", app="aider")
    assert admitted(scene, rules(scene, app="aider")) == {BIG.device_id}
    assert admitted(scene, rules(scene)) == {"GPU-attic"}


def test_a_lost_place_is_waited_for_unless_a_fallback_is_allowed(scene: Scene) -> None:
    scene.rule(Mode.PIN, "attic")
    del scene.state.fleet.nodes["attic"]
    assert admitted(scene, rules(scene)) == set()
    scene.state.assignments.discard("coder.pin")
    scene.node("attic", card("GPU-attic", "RTX 4090", usable=False))
    scene.rule(Mode.PIN, "attic", fallback=True)
    held = rules(scene)
    assert held.fallback_used
    assert {BIG.device_id, SMALL.device_id} <= admitted(scene, held)


def test_a_request_may_allow_or_forbid_the_fallback_itself(scene: Scene) -> None:
    scene.rule(Mode.PIN, "attic", fallback=True)
    del scene.state.fleet.nodes["attic"]
    assert admitted(scene, rules(scene, overrides=Overrides(fallback=False))) == set()
    assert admitted(scene, rules(scene)) == {BIG.device_id, SMALL.device_id}


def test_wishes_of_a_request_narrow_the_rules(scene: Scene) -> None:
    scene.rule(Mode.PIN, "garage")
    place = resolve(scene.state.fleet, "garage/3060")
    assert admitted(scene, rules(scene, overrides=Overrides(pin=(place,)))) == {SMALL.device_id}
    assert admitted(scene, rules(scene, overrides=Overrides(avoid=(place,)))) == {BIG.device_id}
    assert admitted(scene, rules(scene, overrides=Overrides(device_mask=("GPU-attic", BIG.device_id)))) == {
        BIG.device_id
    }
    elsewhere = resolve(scene.state.fleet, "attic")
    assert admitted(scene, rules(scene, overrides=Overrides(pin=(elsewhere,)))) == set()
    assert admitted(scene, rules(scene, overrides=Overrides(pin=(elsewhere,), above_rules=True))) == {"GPU-attic"}


def test_how_many_workers_there_have_to_be_follows_from_all_rules_of_the_model(scene: Scene) -> None:
    assert scene.state.assignments.loading("coder") == LoadingRules()
    scene.rule(Mode.PREFER, "garage", keep_loaded=True)
    scene.rule(Mode.AVOID, "garage/3060", replicas_min=1, replicas_max=3)
    assert scene.state.assignments.loading("coder") == LoadingRules(keep_loaded=True, replicas_min=1, replicas_max=3)
    assert scene.state.assignments.kept_models() == ["coder"]


CONTRADICTIONS = [
    ((Mode.PIN, "garage/3090", "coder", ""), (Mode.PIN, "garage/3060", "coder", "")),
    ((Mode.PIN, "garage/3090", "coder", ""), (Mode.AVOID, "garage", "coder", "")),
    ((Mode.PIN, "garage/3090", "coder", ""), (Mode.AVOID, "garage/3090", "", "aider")),
    ((Mode.PIN, "garage/3090", "coder", ""), (Mode.PIN, "attic", "", "aider")),
    ((Mode.PREFER, "attic", "coder", ""), (Mode.AVOID, "attic/4090", "coder", "")),
    ((Mode.PIN, "garage", "coder", ""), (Mode.PREFER, "attic", "coder", "")),
    ((Mode.PIN, "pool-attic", "coder", ""), (Mode.PIN, "garage", "coder", "")),
    ((Mode.PIN, "garage/3090", "coder", ""), (Mode.PIN, "garage/3090+3060", "coder", "")),
]


@pytest.mark.parametrize(("first", "second"), CONTRADICTIONS)
def test_a_contradiction_is_refused_with_both_rules_named(
    scene: Scene, first: tuple[Mode, str, str, str], second: tuple[Mode, str, str, str]
) -> None:
    there = scene.rule(first[0], first[1], model=first[2], app=first[3])
    with pytest.raises(FailedPrecondition) as refused:
        scene.rule(second[0], second[1], model=second[2], app=second[3])
    assert refused.value.reason is Reason.ASSIGNMENT_CONFLICT
    assert f"'{there.assignment_id}' ({describe(scene.state.fleet, there)})" in refused.value.message
    assert refused.value.metadata["contradicts"] == there.assignment_id
    assert len(scene.state.assignments) == 1, "nothing was set"


AGREEMENTS = [
    ((Mode.AVOID, "garage", "coder", ""), (Mode.PIN, "garage/3090+3060", "coder", "aider")),
    ((Mode.PIN, "garage", "coder", ""), (Mode.PIN, "garage/3060", "coder", "")),
    ((Mode.PIN, "garage/3090", "coder", ""), (Mode.AVOID, "garage/3060", "coder", "")),
    ((Mode.PIN, "garage/3090", "coder", ""), (Mode.PIN, "garage/3060", "writer", "")),
    ((Mode.PIN, "garage/3090", "coder", ""), (Mode.PIN, "garage/3060", "coder", "aider")),
    ((Mode.PIN, "garage/3090", "coder", ""), (Mode.PREFER, "attic", "", "aider")),
    ((Mode.AVOID, "attic", "coder", ""), (Mode.PREFER, "attic", "", "aider")),
    ((Mode.AVOID, "garage", "coder", ""), (Mode.AVOID, "attic", "coder", "")),
    ((Mode.PIN, "pool-garage", "coder", ""), (Mode.PIN, "garage/3090+3060", "coder", "")),
    ((Mode.PREFER, "garage/3090", "coder", ""), (Mode.PREFER, "garage/3060", "coder", "")),
]


@pytest.mark.parametrize(("first", "second"), AGREEMENTS)
def test_rules_that_leave_a_place_are_set(
    scene: Scene, first: tuple[Mode, str, str, str], second: tuple[Mode, str, str, str]
) -> None:
    for mode, target, model, app in (first, second):
        scene.rule(mode, target, model=model, app=app)
    assert len(scene.state.assignments) == 2


def test_pins_of_model_and_app_that_exclude_each_other_are_fine_once_the_pair_has_its_own(scene: Scene) -> None:
    scene.rule(Mode.PIN, "garage/3090")
    scene.rule(Mode.PIN, "garage/3090", app="aider")
    scene.rule(Mode.PIN, "attic", model="", app="aider")
    assert admitted(scene, rules(scene, app="aider")) == {BIG.device_id}
    assert admitted(scene, rules(scene, "writer", app="aider")) == {"GPU-attic"}


def test_rules_that_leave_no_place_only_together_are_refused_with_all_of_them_named(scene: Scene) -> None:
    scene.rule(Mode.PIN, "garage/3090", "garage/3060")
    scene.rule(Mode.AVOID, "garage/3090")
    with pytest.raises(FailedPrecondition) as refused:
        scene.rule(Mode.AVOID, "garage/3060")
    assert "'coder.avoid-2' (coder not on garage/RTX 3060) contradicts 'coder.pin'" in refused.value.message
    assert "and 'coder.avoid' (coder not on garage/RTX 3090): together they leave no place" in refused.value.message
    with pytest.raises(FailedPrecondition, match="together they leave no place"):
        scene.rule(Mode.AVOID, "garage/3060", model="", app="aider")
    scene.rule(Mode.AVOID, "garage/3060", model="writer", app="aider")


def test_places_that_no_node_has_reported_are_compared_by_their_words(scene: Scene) -> None:
    scene.rule(Mode.PIN, "shed/3090", origin=Origin.FILE)
    for mode, target in ((Mode.AVOID, "shed"), (Mode.AVOID, "shed/3090"), (Mode.PIN, "garage")):
        with pytest.raises(FailedPrecondition):
            scene.rule(mode, target, origin=Origin.FILE)
    scene.rule(Mode.PIN, "shed/0", origin=Origin.FILE)
    scene.rule(Mode.AVOID, "shed/1", origin=Origin.FILE)


def test_different_numbers_of_replicas_contradict(scene: Scene) -> None:
    scene.rule(Mode.PREFER, "garage", replicas_max=2)
    with pytest.raises(FailedPrecondition, match="different numbers of replicas"):
        scene.rule(Mode.PREFER, "attic", replicas_max=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "", "app": ""}, "names no model and no app"),
        ({"replicas_min": 3, "replicas_max": 2}, "above replicas_max"),
        ({"model": "", "app": "aider", "keep_loaded": True}, "is needed with keep_loaded"),
        ({"mode": Mode.AVOID, "fallback": True}, "for pins alone"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(scene: Scene, options: dict[str, object], message: str) -> None:
    mode = options.pop("mode", Mode.PIN)
    with pytest.raises(InvalidArgument, match=message):
        scene.rule(mode, "garage", **options)  # type: ignore[arg-type]  # the table names fields


def test_ids_read_well_and_the_same_rule_has_the_same(scene: Scene) -> None:
    assert scene.rule(Mode.PIN, "garage").assignment_id == "coder.pin"
    assert scene.rule(Mode.PIN, "garage").assignment_id == "coder.pin"
    assert scene.rule(Mode.PIN, "garage/3090").assignment_id == "coder.pin-2"
    assert scene.rule(Mode.PREFER, "attic", app="aider").assignment_id == "coder:app.aider.prefer"
    assert describe(scene.state.fleet, scene.state.assignments.get("coder.pin-2")) == "coder only on garage/RTX 3090"


def test_a_request_may_wish_every_field_of_the_contract() -> None:
    assert [field.name for field in fields(Wishes)] == list(PLACEMENT)
    assert {field.name for field in fields(Overrides)} == {*PLACEMENT, "above_rules"}


def test_every_mode_has_an_effect_and_words_where_a_request_may_wish_it() -> None:
    assert set(EFFECTS) == set(Mode)
    assert {mode for mode, effect in EFFECTS.items() if effect.wished} == set(WISHES)
