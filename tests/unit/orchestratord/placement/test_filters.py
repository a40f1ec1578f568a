"""Every filter takes out what it is for, says why, and leaves the rest alone."""

from collections.abc import Callable

import pytest

from llorch.assignment_mode import Mode
from llorch.device_kind import DeviceKind
from llorch.errors import Reason
from orchestratord.core.facts.fleet import FINGERPRINTS_KEPT, NodeState
from orchestratord.core.facts.promise import Fingerprint, Promise
from orchestratord.core.facts.released import ReleasedDevice
from orchestratord.core.facts.rules import Lane, Overrides
from orchestratord.core.facts.targets import Place
from orchestratord.core.facts.task import TaskError
from orchestratord.core.placement import filters
from orchestratord.core.placement.worker_specs import what_to_load
from support.placement import BIG, GIB, SMALL, Scene, card

pytestmark = pytest.mark.req("ORCH-1011")


def removed_by(scene: Scene, **options: object) -> dict[str, tuple[str, str]]:
    """Device → (filter, reason)."""
    decision = scene.place(details=True, **options)  # type: ignore[arg-type]  # tests name fields
    assert sum(decision.removed.values()) == len(decision.details)
    return {"+".join(one.device_ids): (one.filtered_by, one.filter_detail) for one in decision.details}


def scene_with(*cards: object, **options: object) -> Scene:
    scene = Scene()
    scene.node("garage", *cards, **options)  # type: ignore[arg-type]  # tests name fields
    scene.model()
    return scene


def test_a_node_that_can_not_be_reached() -> None:
    scene = scene_with(state=NodeState.SUSPECT)
    assert removed_by(scene)[BIG.device_id] == (
        "node_ready",
        "node 'garage' is away: it has not reported for 0 s (see to its pool manager); nothing new is placed there",
    )


def test_a_node_where_loading_it_failed() -> None:
    scene = scene_with()
    scene.state.refusals["coder"] = {"garage": TaskError(Reason.MODEL_LOAD_FAILED, "no such tensor")}
    found = removed_by(scene, excluded_nodes=frozenset({"garage"}))
    assert found[SMALL.device_id] == ("load_failed", "it could not be loaded there: no such tensor")


def test_a_device_that_does_not_answer() -> None:
    assert removed_by(scene_with(card(usable=False), SMALL)) == {
        BIG.device_id: ("device_usable", "RTX 3090 of garage does not answer")
    }


def test_a_device_whose_node_does_not_offer_the_engine_that_the_model_names() -> None:
    scene = Scene()
    scene.node("garage", card(engines=("llama_cpp",)), card("sim-0", "sim card", index=1, engines=("sim",)))
    scene.node("old", card("GPU-old"))
    scene.model(engine="sim")
    assert removed_by(scene) == {
        BIG.device_id: ("engine", "RTX 3090 runs llama_cpp, and model 'coder' names sim; change its engine"),
        "GPU-old": ("engine", "old reports no engines, and model 'coder' names one; upgrade its pool manager"),
    }


@pytest.mark.parametrize(
    ("told", "is_removed"), [("3.5", True), ("5.0", False), ("8.6", False), ("", False), ("new", False)]
)
def test_a_card_older_than_the_engines_code(told: str, is_removed: bool) -> None:
    found = removed_by(scene_with(card(compute_capability=told), SMALL))
    assert (BIG.device_id in found) == is_removed
    if is_removed:
        assert found[BIG.device_id] == (
            "compute_capability",
            "RTX 3090 has compute capability 3.5; the engine needs 5.0 or more",
        )


def test_only_gpus_have_a_compute_capability() -> None:
    assert removed_by(scene_with(card(compute_capability="3.5", kind=DeviceKind.SIMULATED))) == {}


def test_a_device_outside_of_the_mask_of_the_request() -> None:
    lane = Lane("coder", overrides=Overrides(device_mask=(SMALL.device_id,)))
    assert removed_by(scene_with(), lane=lane) == {
        BIG.device_id: ("device_mask", "the request's device_mask leaves RTX 3090 out")
    }


def test_a_device_that_a_rule_avoids() -> None:
    scene = scene_with()
    scene.rule(Mode.AVOID, "garage/3090")
    assert removed_by(scene) == {BIG.device_id: ("avoided", "rule 'coder not on garage/RTX 3090'")}


def test_a_place_beside_the_pin() -> None:
    scene = scene_with()
    scene.rule(Mode.PIN, "garage/3060")
    assert removed_by(scene) == {BIG.device_id: ("pinned", "rule 'coder only on garage/RTX 3060'")}


def test_a_place_beside_the_one_that_was_asked_for() -> None:
    scene = scene_with()
    found = removed_by(scene, only=(Place("garage", (SMALL.device_id,)),))
    assert found == {BIG.device_id: ("pinned", "the target garage/RTX 3060")}


def test_a_context_that_the_prompt_exceeds() -> None:
    scene = scene_with()
    found = removed_by(scene, context=4096, prompt_tokens=5000, prompt_is_exact=True)
    assert found[BIG.device_id] == ("context", "the prompt has 5000 tokens, and the context 4096")
    assert removed_by(scene, context=4096, prompt_tokens=5000) == {}, "a guess is no reason"


def test_a_device_that_is_too_small_even_when_empty() -> None:
    scene = scene_with()
    scene.model("coder", 20_000)
    assert removed_by(scene)[SMALL.device_id] == (
        "fits_when_empty",
        "needs 20000 MiB, RTX 3060 has 12288 MiB when empty",
    )


def make_busy(scene: Scene) -> None:
    scene.worker("writer", 10_000, SMALL.device_id, busy=2)


def make_kept(scene: Scene) -> None:
    scene.rule(Mode.PREFER, "garage", model="writer", keep_loaded=True)
    scene.worker("writer", 10_000, SMALL.device_id)


@pytest.mark.parametrize(
    ("occupy", "why"),
    [
        (make_busy, "works on 2 tasks"),
        (make_kept, "stays loaded by a rule"),
    ],
)
def test_a_device_whose_workers_do_not_leave(occupy: Callable[[Scene], None], why: str) -> None:
    scene = scene_with(SMALL)
    scene.model("writer")
    occupy(scene)
    assert removed_by(scene)[SMALL.device_id] == ("room", f"RTX 3060: writer {why}")


def test_a_device_that_its_owner_took_back() -> None:
    scene = scene_with()
    scene.state.released.put(ReleasedDevice("garage", BIG.device_id), None)
    assert removed_by(scene)[BIG.device_id][0] == "device_released"


FINGERPRINT = Fingerprint("aa", ("RTX 3090", "driver 555"))
PROMISE = Promise(FINGERPRINT, ("CUDA RTX 3090",), 4096)
BEGUN = Lane("coder", promise=PROMISE)


@pytest.mark.req("ORCH-1038")
def test_a_card_that_gives_other_bytes_than_those_that_a_task_began_with() -> None:
    scene = scene_with()
    filtered_by, why = removed_by(scene, lane=BEGUN)[SMALL.device_id]
    assert filtered_by == "fingerprint"
    assert why.startswith("the output began on RTX 3090, driver 555; CUDA RTX 3060 with a context of 4096")
    assert scene.chosen(lane=BEGUN) == ("garage/GPU-3090",)
    assert scene.place().removed == {}


@pytest.mark.req("ORCH-1038")
def test_a_set_of_cards_that_is_another_than_the_one_that_a_task_began_on() -> None:
    scene = scene_with(card("A"), card("B", index=1), SMALL)
    scene.model("large", 30 * GIB)
    both = Promise(FINGERPRINT, ("CUDA RTX 3090", "CUDA RTX 3090"), 4096)
    assert scene.chosen("large", lane=Lane("large", promise=both)) == ("garage/A", "garage/B")
    mixed = Promise(FINGERPRINT, ("CUDA RTX 3090", "CUDA RTX 4090"), 4096)
    assert scene.place("large", lane=Lane("large", promise=mixed)).removed["fingerprint"] > 0
    assert scene.chosen("large", lane=Lane("large", promise=mixed)) == ()


@pytest.mark.req("ORCH-1038")
def test_a_card_that_gave_other_bytes_the_last_time_the_model_was_loaded_there() -> None:
    scene = scene_with()
    model, node = scene.state.catalog.get("coder"), scene.state.fleet.nodes["garage"]
    node.note_fingerprint(what_to_load(model, [BIG], 4096), Fingerprint("bb", ("RTX 3090", "driver 550")))
    assert removed_by(scene, lane=BEGUN)[BIG.device_id] == (
        "fingerprint",
        "the output began on driver 555, and what was loaded there last had driver 550",
    )
    node.note_fingerprint(what_to_load(model, [BIG], 2048), Fingerprint("bb"))
    node.note_fingerprint(what_to_load(model, [BIG], 4096), FINGERPRINT)
    assert scene.chosen(lane=BEGUN) == ("garage/GPU-3090",)


def test_of_what_a_node_gave_the_newest_is_kept() -> None:
    scene = scene_with()
    model, node = scene.state.catalog.get("coder"), scene.state.fleet.nodes["garage"]
    for context in range(FINGERPRINTS_KEPT + 5):
        node.note_fingerprint(what_to_load(model, [BIG], context), FINGERPRINT)
    assert [told.context_per_slot for told in node.loaded_as] == list(range(5, FINGERPRINTS_KEPT + 5))


def test_details_are_told_only_when_the_caller_asks_for_them() -> None:
    scene = scene_with()
    scene.rule(Mode.PIN, "garage/3060")
    decision = scene.place()
    assert decision.removed == {"pinned": 1}
    assert decision.details == ()


def test_every_reason_that_can_leave_out_every_device_ends_the_wait_or_passes_by_itself() -> None:
    """A filter that is neither would let a task wait for ever."""
    by_rules = {one.name for one in filters.OF_RULES}
    ends = {"load_failed", "model_file", "engine", "compute_capability"}
    asked = (*filters.OF_NODES, *filters.OF_DEVICES)
    assert {one.name for one in asked if one.absence is None} - by_rules == ends
