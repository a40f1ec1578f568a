"""Explanations are the decision itself, in sentences."""

from dataclasses import replace

import pytest

from llorch.assignment_mode import Mode
from llorch.errors import NotFound, Reason
from llorch.split_mode import SplitMode
from orchestratord.core.facts.decision import Outcome
from orchestratord.core.facts.durations import duration
from orchestratord.core.facts.fleet import NodeState
from orchestratord.core.facts.rules import Wishes
from orchestratord.core.facts.task import TaskError
from orchestratord.core.placement.explain import explain
from orchestratord.core.placement.sentences import sentence
from support.placement import BIG, GIB, SMALL, Scene, card

pytestmark = pytest.mark.req("ORCH-1013")


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.node()
    scene.model("coder", 9 * GIB)
    scene.model("phi-4", 9 * GIB)
    return scene


def said(scene: Scene, model: str = "coder", app: str = "", wishes: Wishes | None = None) -> str:
    return sentence(explain(scene.state, model, app, 100, 100, wishes), is_dry_run=True)


def test_a_load_that_evicts_beside_a_rule_that_excludes(scene: Scene) -> None:
    scene.rule(Mode.PIN, "garage/3060")
    scene.worker("phi-4", round(8.9 * GIB), SMALL.device_id, age_s=14 * 60)
    scene.state.rates.loaded("coder", "garage", 9 * GIB, 3100)
    assert said(scene) == (
        "would load on GPU 1 (RTX 3060) of garage: 3.1 s to load, evicts phi-4 (idle 14 min, frees 8.9 GiB); "
        "GPU 0 (RTX 3090) of garage excluded: rule 'coder only on garage/RTX 3060'"
    )


def test_a_time_that_was_never_measured_is_not_told_as_if_it_were(scene: Scene) -> None:
    assert " to load for the first time" in said(scene)
    scene.state.rates.loaded("coder", "garage", 9 * GIB, 3100)
    assert ": 3.1 s to load" in said(scene)


def test_what_is_not_known_yet_is_said(scene: Scene) -> None:
    model = scene.model("coder")
    model.spec = replace(model.spec, vram_claim_mib=None)
    model.size_mib = None
    assert "what it takes is known once its file was looked at" in said(scene)


def test_a_claim_of_the_owner_counts_before_a_node_has_seen_the_file(scene: Scene) -> None:
    scene.model("coder", 30 * GIB).size_mib = None
    assert "GPU 0 (RTX 3090) + GPU 1 (RTX 3060) of garage" in said(scene).partition(":")[0]


def test_where_it_is_loaded_only_rules_are_told_of_other_places(scene: Scene) -> None:
    scene.rule(Mode.AVOID, "garage/3060")
    scene.worker("coder", 20 * GIB, age_s=1)
    assert said(scene) == (
        "would run on GPU 0 (RTX 3090) of garage, where it is loaded; "
        "GPU 1 (RTX 3060) of garage excluded: rule 'coder not on garage/RTX 3060'"
    )


def test_a_worker_that_is_there(scene: Scene) -> None:
    scene.worker("coder", 9 * GIB)
    assert said(scene) == "would run on GPU 0 (RTX 3090) of garage, where it is loaded"


def test_a_worker_that_is_full_is_waited_for(scene: Scene) -> None:
    scene.worker("coder", 9 * GIB, slots=1, busy=1)
    record = explain(scene.state, "coder", "", 0, 0)
    assert record.outcome is Outcome.WAITS
    assert sentence(record, is_dry_run=True) == "would wait for a slot on GPU 0 (RTX 3090) of garage"


def test_a_model_over_two_devices(scene: Scene) -> None:
    scene.model("large", 30 * GIB)
    scene.state.rates.loaded("large", "garage", 30 * GIB, 20_000)
    assert said(scene, "large") == (
        "would load on GPU 0 (RTX 3090) + GPU 1 (RTX 3060) of garage: 20 s to load, 20.0 GiB + 10.0 GiB; "
        "GPU 0 (RTX 3090) of garage excluded: needs 30720 MiB, RTX 3090 has 24576 MiB when empty; "
        "GPU 1 (RTX 3060) of garage excluded: needs 30720 MiB, RTX 3060 has 12288 MiB when empty"
    )


def test_a_task_that_has_to_wait_is_told_for_which_workers(scene: Scene) -> None:
    scene.worker("phi-4", 20 * GIB, BIG.device_id, busy=2)
    scene.worker("phi-4", 10 * GIB, SMALL.device_id, busy=1)
    told = said(scene)
    assert told.startswith("would wait until there is room for it; ")
    assert "GPU 0 (RTX 3090) of garage taken: RTX 3090: phi-4 works on 2 tasks" in told


def test_a_card_that_is_full_is_told_beside_the_one_that_will_do(scene: Scene) -> None:
    scene.worker("writer", 20 * GIB, BIG.device_id, busy=1)
    told = said(scene)
    assert told.startswith("would load on GPU 1 (RTX 3060) of garage: ")
    assert told.endswith("; GPU 0 (RTX 3090) of garage taken: RTX 3090: writer works on 1 task")


def test_each_gpu_is_told_once(scene: Scene) -> None:
    """It has a worker whose context is too short, and it is full, and a rule excludes sets that it is part of."""
    scene.model("coder", 20 * GIB).spec = replace(scene.model("coder", 20 * GIB).spec, context=32768)
    scene.worker("coder", 20 * GIB, BIG.device_id, busy=1, context=4096)
    scene.rule(Mode.AVOID, "garage/3060")
    record = explain(scene.state, "coder", "", 5000, 100)
    places = [(one.node_id, one.device_ids) for one in record.candidates]
    assert len(places) == len(set(places))
    told = sentence(record, is_dry_run=True)
    assert (told.count("GPU 0 "), told.count("GPU 1 ")) == (1, 1), told
    assert "GPU 0 (RTX 3090) of garage excluded: the prompt has 5000 tokens, and the context 4096" in told


def test_a_set_is_not_told_beside_a_gpu_of_it_that_the_same_rule_excludes(scene: Scene) -> None:
    scene.model("large", 20 * GIB)
    scene.rule(Mode.PIN, "garage/3090", model="large")
    told = said(scene, "large")
    assert "GPU 1 (RTX 3060) of garage excluded: rule 'large only on garage/RTX 3090'" in told
    assert "+" not in told


def test_devices_that_are_large_enough_only_together_are_not_called_the_largest(scene: Scene) -> None:
    scene.model("huge", 30 * GIB)
    scene.worker("coder", 14 * GIB, BIG.device_id)
    scene.rule(Mode.PIN, "garage/3090", keep_loaded=True)
    told = said(scene, "huge")
    assert "the largest device holds" not in told
    assert "holds 36864 MiB when empty, but one of them less than its share" in told


def test_a_prompt_longer_than_the_context_is_the_cause_and_not_memory(scene: Scene) -> None:
    coder = scene.state.catalog.get("coder")
    coder.spec = replace(coder.spec, context=8192)
    record = explain(scene.state, "coder", "", 9000, 0)
    assert record.outcome is Outcome.REFUSED
    assert sentence(record, is_dry_run=True) == (
        "can't be placed: the prompt has 9000 tokens, and the context 8192; shorten the prompt, or raise the context "
        "of model 'coder'"
    )


def test_a_prompt_longer_than_the_context_of_the_worker_that_is_there_does_not_wait_for_it(scene: Scene) -> None:
    scene.rule(Mode.PIN, "garage/3060", keep_loaded=True)
    scene.worker("coder", 9 * GIB, SMALL.device_id, context=4096)
    told = sentence(explain(scene.state, "coder", "", 5000, 0), is_dry_run=True)
    assert told.startswith("can't be placed: the prompt has 5000 tokens, and the context 4096; shorten the prompt")
    assert "memory" not in told
    assert "MiB" not in told


def test_a_prompt_that_is_too_long_is_no_cause_where_shorter_ones_have_no_place_either(scene: Scene) -> None:
    scene.model("huge", 90 * GIB)
    assert "needs 92160 MiB" in sentence(explain(scene.state, "huge", "", 10**6, 0), is_dry_run=True)


@pytest.mark.parametrize("state", [NodeState.SUSPECT, NodeState.LOST])
def test_one_cause_is_told_once(scene: Scene, state: NodeState) -> None:
    scene.state.fleet.nodes["garage"].state = state
    assert said(scene).count("it has not reported for") == 1


def test_why_a_load_failed_is_told_once_beside_where_it_was_tried(scene: Scene) -> None:
    failure = TaskError(Reason.MODEL_FILE_INVALID, "/coder.gguf: is no GGUF file")
    scene.state.refusals["coder"] = {"garage": failure}
    told = said(scene)
    assert told.count(failure.message) == 1
    assert told.endswith("of garage excluded: it could not be loaded there")


def test_what_a_model_needs_is_the_same_for_each_place_and_for_all(scene: Scene) -> None:
    """Its context is left open, so that the least counts."""
    model = scene.model("open", 90 * GIB)
    model.spec = replace(model.spec, vram_claim_mib=None, split=SplitMode.NONE)
    told = said(scene, "open")
    needed = told.partition("needs about ")[2].partition(" MiB with context 2048, the least that is tried,")[0]
    assert f"GPU 0 (RTX 3090) of garage excluded: needs {needed} MiB, RTX 3090 has 24576 MiB when empty" in told


def test_what_can_not_be_says_why(scene: Scene) -> None:
    scene.model("huge", 90 * GIB)
    assert explain(scene.state, "huge", "", 0, 0).outcome is Outcome.REFUSED
    assert said(scene, "huge").startswith("can't be placed: model 'huge' needs 92160 MiB")
    assert "GPU 0 (RTX 3090) of garage excluded: needs 92160 MiB" in said(scene, "huge")


def test_what_can_not_be_now_says_what_it_waits_for(scene: Scene) -> None:
    scene.state.fleet.nodes["garage"].state = NodeState.SUSPECT
    assert explain(scene.state, "coder", "", 0, 0).outcome is Outcome.WAITS
    assert said(scene).startswith("would wait for node 'garage', which is away: it has not reported for")
    scene.state.fleet.nodes["garage"].state = NodeState.LOST
    assert explain(scene.state, "coder", "", 0, 0).outcome is Outcome.REFUSED
    assert "node 'garage' is away" in said(scene)


def test_a_fallback_is_told(scene: Scene) -> None:
    scene.node("attic", card("GPU-attic", "RTX 4090"))
    scene.rule(Mode.PIN, "attic", fallback=True)
    scene.node("attic", card("GPU-attic", "RTX 4090", usable=False))
    assert "its fallback allows another" in said(scene)


def test_wishes_count_as_they_would_for_a_task(scene: Scene) -> None:
    assert "GPU 1 (RTX 3060)" in said(scene, wishes=Wishes(pin=("garage/3060",))).partition(";")[0]
    assert "the request's pin to garage/RTX 3060" in said(scene, wishes=Wishes(pin=("garage/3060",)))


def test_many_places_are_told_in_groups() -> None:
    scene = Scene()
    for number in range(10):
        scene.node(f"n{number}", card(f"GPU-{number}", "RTX 3060", 12))
    scene.node("garage")
    scene.model("coder", 13 * GIB)
    told = said(scene)
    assert "of n3 and 7 more excluded: needs 13312 MiB, RTX 3060 has 12288 MiB when empty" in told
    assert len(told) < 400


def test_an_explanation_changes_nothing(scene: Scene) -> None:
    explain(scene.state, "coder", "", 0, 0)
    assert scene.state.outbox == []
    assert list(scene.state.decisions.newest_first()) == []


def test_unknown_names_are_refused_as_for_a_task(scene: Scene) -> None:
    with pytest.raises(NotFound, match="nearest names"):
        explain(scene.state, "codr", "", 0, 0)
    with pytest.raises(NotFound):
        explain(scene.state, "coder", "unknown", 0, 0)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0.0 s"), (3.14, "3.1 s"), (45, "45 s"), (840, "14 min"), (7300, "2 h"), (200_000, "2 days")],
)
def test_times_are_told_in_one_unit(seconds: float, told: str) -> None:
    assert duration(seconds) == told
