"""Where models are loaded: on as few devices as will do, where it costs least, and always for a reason."""

from contextlib import suppress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llorch.assignment_mode import Mode
from llorch.device_kind import DeviceKind
from llorch.errors import FailedPrecondition
from llorch.split_mode import SplitMode
from orchestratord.core.facts.decision import Largest
from orchestratord.core.facts.fleet import NodeState
from orchestratord.core.facts.rules import Lane, Overrides
from orchestratord.core.learnt.rates import Rates, Run
from orchestratord.core.placement.possible import EVICTIONS_COMPARED
from support.example_count import examples
from support.placement import BIG, GIB, SMALL, Scene, card

pytestmark = pytest.mark.req("ORCH-1011")

G3090, G3060 = f"garage/{BIG.device_id}", f"garage/{SMALL.device_id}"


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.node()
    scene.model("coder")
    scene.model("writer")
    return scene


def test_the_emptier_card_is_taken_if_nothing_else_differs(scene: Scene) -> None:
    assert scene.chosen() == (G3090,)
    scene.worker("writer", 12 * GIB, BIG.device_id)
    assert scene.chosen() == (G3060,)


def test_a_card_that_was_measured_to_be_faster_is_worth_being_fuller(scene: Scene) -> None:
    scene.worker("writer", 12 * GIB, BIG.device_id)
    learn_speed(scene.state.rates, "coder", BIG.name, ms_per_token=10)
    learn_speed(scene.state.rates, "coder", SMALL.name, ms_per_token=40)
    assert scene.chosen(output_tokens=200) == (G3090,)


def learn_speed(rates: Rates, model: str, device: str, ms_per_token: float) -> None:
    run = Run(
        app="",
        model=model,
        device=device,
        batch=1,
        prompt_tokens_guessed=100,
        tokens_in=100,
        cached_tokens=0,
        tokens_out=101,
        choices=1,
        was_cut=False,
        prefill_ms=100,
        decode_ms=round(100 * ms_per_token),
    )
    for _ in range(3):
        rates.ran(run)


def test_the_nearer_disk_wins(scene: Scene) -> None:
    scene.node("attic", card("GPU-attic"))
    scene.state.rates.loaded("coder", "garage", 8 * GIB, 60_000)
    scene.state.rates.loaded("coder", "attic", 8 * GIB, 3_000)
    assert scene.chosen() == ("attic/GPU-attic",)


def test_no_model_is_evicted_while_another_card_is_free(scene: Scene) -> None:
    scene.worker("writer", 20 * GIB, BIG.device_id)
    chosen = scene.place().chosen
    assert chosen is not None
    assert (chosen.device_ids, chosen.evicts) == ((SMALL.device_id,), ())


def test_an_idle_worker_leaves_where_nothing_is_free(scene: Scene) -> None:
    scene.worker("writer", 20 * GIB, BIG.device_id, age_s=840)
    scene.worker("writer", 10 * GIB, SMALL.device_id, busy=1)
    chosen = scene.place().chosen
    assert chosen is not None
    assert chosen.device_ids == (BIG.device_id,)
    (leaver,) = chosen.evicted
    assert (leaver.model, leaver.idle_s, leaver.mib, chosen.evicts_mib) == ("writer", 840, 20 * GIB, 20 * GIB)
    assert chosen.ms("evict", "regret") > 0


def test_an_eviction_is_cheaper_than_a_very_slow_disk(scene: Scene) -> None:
    scene.node("attic", card("GPU-attic"))
    scene.worker("writer", 20 * GIB, BIG.device_id)
    scene.worker("writer", 10 * GIB, SMALL.device_id)
    scene.state.rates.loaded("coder", "garage", 8 * GIB, 3_000)
    scene.state.rates.loaded("coder", "attic", 8 * GIB, 300_000)
    assert scene.chosen() in [(G3090,), (G3060,)]
    scene.state.rates = Rates()
    assert scene.chosen() == ("attic/GPU-attic",)


def test_it_waits_for_busy_workers_and_says_so(scene: Scene) -> None:
    scene.worker("writer", 20 * GIB, BIG.device_id, busy=1)
    scene.worker("writer", 10 * GIB, SMALL.device_id, busy=1)
    decision = scene.place()
    assert (decision.chosen, decision.waits, decision.removed) == (None, True, {"room": 2})


def test_it_does_not_wait_for_what_can_never_be(scene: Scene) -> None:
    scene.model("coder", 40 * GIB)
    decision = scene.place()
    assert (decision.chosen, decision.waits) == (None, False)
    assert decision.has_usable
    assert decision.largest == Largest(36 * GIB, devices=2)


def test_a_preferred_place_is_taken_if_it_can_be(scene: Scene) -> None:
    scene.rule(Mode.PREFER, "garage/3060")
    assert scene.chosen() == (G3060,)
    writer = scene.worker("writer", 10 * GIB, SMALL.device_id)
    assert scene.place().chosen.evicts == (writer.worker_id,), "there if it can: the idle worker leaves"  # type: ignore[union-attr]
    writer.attempts.add("a run")
    assert scene.chosen() == (G3090,)


def test_rules_that_exclude_all_are_named(scene: Scene) -> None:
    scene.rule(Mode.PIN, "garage/3060")
    decision = scene.place(lane=Lane("coder", overrides=Overrides(device_mask=(BIG.device_id,))))
    assert decision.chosen is None
    assert decision.excluded_by == (
        "rule 'coder only on garage/RTX 3060'",
        f"the request's device_mask {BIG.device_id}",
    )
    assert decision.pinned


# Sets of devices.


@pytest.mark.req("ORCH-1034")
def test_it_waits_for_one_device_rather_than_take_two(scene: Scene) -> None:
    scene.model("coder", 14 * GIB)
    scene.worker("writer", 12 * GIB, BIG.device_id, busy=1)
    decision = scene.place()
    assert (decision.chosen, decision.waits) == (None, True)
    assert [one.device_ids for one in decision.blocked] == [(BIG.device_id,)]


@pytest.mark.req("ORCH-1034")
def test_one_device_goes_before_two(scene: Scene) -> None:
    scene.model("coder", 13 * GIB)
    assert scene.chosen() == (G3090,)
    scene.model("coder", 30 * GIB)
    assert scene.chosen() == (G3090, G3060)


@pytest.mark.req("ORCH-1034")
def test_shares_go_by_free_memory_and_every_device_has_its_claim(scene: Scene) -> None:
    scene.model("coder", 30 * GIB)
    chosen = scene.place().chosen
    assert chosen is not None
    assert chosen.tensor_split == (24.0, 12.0)
    assert chosen.claims_mib == (20 * GIB, 10 * GIB)
    scene.worker("writer", 2 * GIB, BIG.device_id)
    chosen = scene.place().chosen
    assert chosen is not None
    assert chosen.tensor_split == (22.0, 12.0)
    assert chosen.claims_mib[0] / chosen.claims_mib[1] == pytest.approx(22 / 12, rel=0.001)


@pytest.mark.req("ORCH-1034")
def test_shares_leave_out_what_is_kept(scene: Scene) -> None:
    scene.rule(Mode.PIN, "garage/3090", model="writer", keep_loaded=True)
    scene.worker("writer", 14 * GIB, BIG.device_id)
    idle = scene.worker("phi-4", 9 * GIB, SMALL.device_id).worker_id
    scene.model("coder", 20 * GIB)
    chosen = scene.place().chosen
    assert chosen is not None
    assert (chosen.tensor_split, chosen.evicts) == ((10.0, 12.0), (idle,))
    scene.model("coder", 23 * GIB)
    decision = scene.place()
    assert (decision.chosen, decision.waits) == (None, False)


@pytest.mark.req("ORCH-1034")
def test_a_set_is_made_free_on_all_of_its_devices(scene: Scene) -> None:
    scene.model("coder", 33 * GIB)
    workers = {scene.worker("writer", 9 * GIB, card_.device_id).worker_id for card_ in (BIG, SMALL)}
    chosen = scene.place().chosen
    assert chosen is not None
    assert set(chosen.evicts) == workers


@pytest.mark.req("ORCH-1034")
def test_a_model_that_must_not_be_split_is_not(scene: Scene) -> None:
    scene.model("coder", 30 * GIB, split=SplitMode.NONE)
    assert scene.chosen() == ()


@pytest.mark.req("ORCH-1034")
def test_a_model_that_is_to_be_spread_takes_two_though_one_would_do(scene: Scene) -> None:
    scene.model("coder", 6 * GIB, split=SplitMode.LAYER)
    assert scene.chosen() == (G3090, G3060)


@pytest.mark.req("ORCH-1034")
def test_shares_of_the_owner_are_kept(scene: Scene) -> None:
    scene.model("coder", 30 * GIB, split=SplitMode.LAYER, split_shares=(3.0, 1.0))
    chosen = scene.place().chosen
    assert chosen is not None
    assert (chosen.tensor_split, chosen.claims_mib) == ((3.0, 1.0), (22.5 * GIB, 7.5 * GIB))


@pytest.mark.req("ORCH-1012", "ORCH-1034")
def test_a_pin_to_two_cards_spreads_the_model_over_both_in_that_order(scene: Scene) -> None:
    scene.model("coder", 6 * GIB)
    scene.rule(Mode.PIN, "garage/3060+3090")
    assert scene.chosen() == (G3060, G3090)
    assert scene.place().removed == {"pinned": 2}


@pytest.mark.req("ORCH-1034")
def test_devices_of_different_kinds_make_no_set(scene: Scene) -> None:
    cpu = card("cpu", "CPU", 64, kind=DeviceKind.CPU, index=2)
    scene.node("garage", BIG, card("sim-0", "RTX 4090", 24, kind=DeviceKind.SIMULATED, index=1), cpu)
    scene.model("coder", 70 * GIB)
    assert scene.chosen() == ()
    scene.model("coder", 40 * GIB)
    assert scene.chosen() == ("garage/cpu",)


@pytest.mark.req("ORCH-1034")
def test_devices_of_different_nodes_make_no_set(scene: Scene) -> None:
    scene.node("attic", card("GPU-attic", gib=24))
    scene.model("coder", 40 * GIB)
    assert scene.chosen() == ()


@pytest.mark.req("ORCH-1034")
def test_on_a_large_node_those_with_most_room_go_together() -> None:
    scene = Scene()
    scene.node("rack", *(card(f"GPU-{number}", gib=24, index=number) for number in range(8)))
    scene.model("coder", 40 * GIB)
    for number in range(6):
        scene.worker("writer", 8 * GIB, f"GPU-{number}", node_id="rack", busy=1)
    assert scene.chosen() == ("rack/GPU-6", "rack/GPU-7")


# What holds for all.


def test_equal_snapshots_give_equal_decisions_whatever_came_first() -> None:
    found = set()
    for seed in range(20):
        scene = Scene()
        nodes = [f"node-{number}" for number in range(5)]
        Random(seed).shuffle(nodes)  # noqa: S311  an order, not a secret
        for node_id in nodes:
            cards = [card("GPU-a", index=0), card("GPU-b", index=1)]
            scene.node(node_id, *(cards if seed % 2 else reversed(cards)))
        scene.model()
        found.add(scene.chosen())
    assert found == {("node-0/GPU-a",)}


@pytest.mark.parametrize("gib", [(8, 14), (26, 40)], ids=["one card", "several"])
@pytest.mark.parametrize("seed", range(10))
def test_in_a_large_fleet_nothing_that_matters_is_passed_over(seed: int, gib: tuple[int, int]) -> None:
    """Without details most places are not looked at closely; what comes of it is the same."""
    random, scene = Random(seed), Scene()  # noqa: S311  a fleet, not a secret
    scene.model("writer")
    for number in range(12):
        node_id = f"n{number:02}"
        cards = [card(f"GPU-{index}", gib=random.choice([12, 24]), index=index) for index in range(4)]
        scene.node(node_id, *cards)
        for device in cards:
            mib = device.total_mib - random.choice([0, 2, 9]) * GIB
            scene.worker("writer", mib, device.device_id, node_id=node_id, busy=int(random.random() < seed / 9))
    scene.model("coder", random.choice(gib) * GIB)
    closely, quickly = scene.place(details=True), scene.place()
    assert closely.considered > EVICTIONS_COMPARED
    assert quickly.ranked == closely.ranked[: len(quickly.ranked)]
    assert (quickly.removed, quickly.waits) == (closely.removed, closely.waits)
    assert {one.device_ids for one in quickly.blocked} <= {one.device_ids for one in closely.details}


def test_a_decision_changes_nothing(scene: Scene) -> None:
    scene.worker("writer", 20 * GIB, BIG.device_id)
    before = scene.place(details=True)
    assert scene.place(details=True) == before
    assert scene.state.outbox == []
    assert scene.state.ledger.held(("garage", BIG.device_id)) == 20 * GIB


@st.composite
def crowded_scenes(draw: st.DrawFn) -> Scene:
    """Nodes, some not reachable; cards, some lost; workers, some busy; rules that were not refused."""
    scene = Scene()
    scene.model("writer")
    for node_number in range(draw(st.integers(1, 3))):
        node_id = f"n{node_number}"
        cards = [
            card(
                f"GPU-{node_number}{index}",
                gib=draw(st.sampled_from([8, 12, 24])),
                index=index,
                usable=draw(st.booleans()) or index == 0,
            )
            for index in range(draw(st.integers(1, 4)))
        ]
        scene.node(node_id, *cards, state=draw(st.sampled_from([NodeState.READY, NodeState.READY, NodeState.SUSPECT])))
        for device in cards:
            for _ in range(draw(st.integers(0, 2))):
                mib = draw(st.integers(1, 8)) * GIB
                if mib <= scene.state.ledger.available((node_id, device.device_id)):
                    busy, age_s = draw(st.integers(0, 1)), draw(st.sampled_from([1.0, 100.0]))
                    scene.worker("writer", mib, device.device_id, node_id=node_id, busy=busy, age_s=age_s)
    scene.model("coder", draw(st.integers(1, 40)) * GIB, split=draw(st.sampled_from(["auto", "none", "layer"])))
    if draw(st.booleans()):
        with suppress(FailedPrecondition):  # a pin that could never be met is not set
            scene.rule(draw(st.sampled_from(list(Mode))), draw(st.sampled_from(["n0", "n0/0"])))
    return scene


@settings(max_examples=examples(150), deadline=None)
@given(crowded_scenes())
def test_what_is_chosen_fits_once_the_workers_have_left_that_may(scene: Scene) -> None:
    decision, state = scene.place(), scene.state
    detailed = scene.place(details=True)
    assert detailed.ranked[:1] == decision.ranked[:1]
    assert detailed.removed == decision.removed
    scores = [one.score_ms for one in detailed.ranked]
    assert scores == sorted(scores) or state.assignments.all(), "preferences go before costs"
    for candidate in detailed.ranked:
        node = state.fleet.nodes[candidate.node_id]
        assert node.state is NodeState.READY
        assert len(set(candidate.device_ids)) == len(candidate.device_ids) == len(candidate.claims_mib)
        assert sum(candidate.claims_mib) >= 0.999 * state.catalog.get("coder").size_mib  # type: ignore[operator]  # it is known
        leavers = [state.fleet.workers[worker_id] for worker_id in candidate.evicts]
        assert all(worker.is_idle for worker in leavers)
        for device_id, claim in zip(candidate.device_ids, candidate.claims_mib, strict=True):
            freed = sum(state.ledger.held_by(worker.worker_id, (node.node_id, device_id)) for worker in leavers)
            assert node.devices[device_id].usable
            assert claim <= state.ledger.available((node.node_id, device_id)) + freed
        for rule in state.assignments.all():
            at_place = any(place.covers(node, candidate.device_ids) for place in rule.known_places)
            assert rule.mode is not Mode.PIN or at_place
            assert rule.mode is not Mode.AVOID or not any(
                p.touches(node, candidate.device_ids) for p in rule.known_places
            )
