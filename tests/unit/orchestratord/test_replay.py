"""A simulated day comes out as it has to, by what the world is made of."""

from dataclasses import replace

import pytest

from llorch.errors import FailedPrecondition
from orchestratord.core import events
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.model import ModelSpec, Origin
from orchestratord.core.state import BrainConfig
from orchestratord.day_file import with_gpu, with_pin
from orchestratord.simulation.day import Arrival, Day
from orchestratord.simulation.plan import GIB, DevicePlan, HostPlan, ModelPlan, WorldPlan
from orchestratord.simulation.process import PREFILL_TIMES_FASTER
from orchestratord.simulation.replay import replay
from orchestratord.simulation.true_size import TrueSize

LOADS_S = 0.5 + 16 * GIB / 2000
CARD = DevicePlan("GPU-garage-0", "RTX 3090", 24 * GIB, 0, 1.0)
WORK = TrueSize(tokens_in=400, tokens_out=100)
RUNS_S = 100 / 40 + 400 / 40 / PREFILL_TIMES_FASTER


def day(*arrivals: Arrival, slots: int = 1, apps: tuple[App, ...] = ()) -> Day:
    """Two models that do not fit together on the only card, at 40 tokens per second."""
    models = tuple(ModelPlan(name, 16 * GIB, 16 * GIB, slots, 40.0) for name in "ab")
    specs = [ModelSpec(name, f"file:/models/{name}.gguf", slots=slots, vram_claim_mib=16 * GIB) for name in "ab"]
    settings = (
        *(events.ModelRegistered(spec, Origin.FILE, "a test") for spec in specs),
        *(events.AppDefined(app) for app in apps),
    )
    plan = WorldPlan(seed=1, hosts=(HostPlan("garage", (CARD,), 2000.0),), models=models)
    return Day(plan, settings, arrivals, lasts_s=600.0)


def comes(at: float, model: str = "a", app: str = "", **fields: object) -> Arrival:
    return Arrival(at, app, model, "", WORK, **fields)  # type: ignore[arg-type]  # tests name fields


def test_the_first_task_waits_for_the_load_and_the_next_one_for_the_slot() -> None:
    outcome = replay(day(comes(1.0), comes(100.0), comes(100.0)), BrainConfig())
    waits = outcome.apps[""]
    assert (waits.tasks, waits.answered, waits.refused, waits.failed) == (3, 3, 0, 0)
    assert waits.longest_s == pytest.approx(LOADS_S, abs=0.5)
    assert waits.median_s == pytest.approx(RUNS_S, abs=0.1)
    assert (outcome.loads, outcome.evictions) == (1, 0)


def test_cards_are_as_busy_as_what_ran_there_and_hold_what_was_loaded() -> None:
    outcome = replay(day(*(comes(9.3 * number) for number in range(1, 61))), BrainConfig())
    (card,) = outcome.cards
    assert (card.place, card.name) == ("garage/0", "RTX 3090")
    assert card.busy == pytest.approx(60 * RUNS_S / 600, rel=0.03)
    assert card.held == pytest.approx(16 / 24 * (600 - 10) / 600, abs=0.02)


def test_a_second_card_saves_the_loads_of_models_that_take_turns() -> None:
    turns = day(*(comes(20.0 * number, "ab"[number % 2]) for number in range(25)))
    now, then = (replay(one, BrainConfig()) for one in (turns, with_gpu(turns, "attic", "RTX 3090:24GiB")))
    assert now.loads > 10
    assert now.evictions == now.loads - 1
    assert (then.loads, then.evictions) == (2, 0)
    waits_now, waits_then = now.apps[""].median_s, then.apps[""].median_s
    assert waits_now == pytest.approx(LOADS_S, rel=0.2)
    assert waits_then == 0.0
    assert [card.place for card in then.cards] == ["garage/0", "attic/0"]


def test_a_model_that_is_pinned_to_what_does_not_hold_it_is_answered_no_more() -> None:
    one = with_gpu(day(comes(1.0), comes(2.0, "b")), "attic", "RTX 3060:12GiB")
    outcome = replay(with_pin(one, "b", "attic/3060"), BrainConfig())
    waits = outcome.apps[""]
    assert (waits.tasks, waits.answered, waits.refused) == (2, 1, 1)
    assert [(count, "12288 MiB" in problem) for problem, count in outcome.problems.items()] == [(1, True)]


def test_waits_are_told_of_each_app_and_of_none_that_did_not_start() -> None:
    apps = (App("one"), App("two"))
    outcome = replay(day(comes(1.0, app="one"), comes(1.0, "c", app="two"), apps=apps), BrainConfig())
    assert {name: (waits.answered, waits.median_s is None) for name, waits in outcome.apps.items()} == {
        "one": (1, False),
        "two": (0, True),
    }


def test_a_client_that_finds_no_room_comes_back_and_its_wait_goes_on() -> None:
    tasks = [comes(1.0) for _ in range(8)]
    roomy, narrow = (replay(day(*tasks), BrainConfig(queue_capacity=room)) for room in (100, 4))
    assert narrow.apps[""].answered + narrow.apps[""].refused == 8
    assert narrow.apps[""].answered > 5
    assert narrow.apps[""].longest_s is not None
    assert roomy.apps[""].answered == 8
    assert narrow.apps[""].longest_s >= LOADS_S


def test_no_client_is_lost_that_would_come_back_after_the_day() -> None:
    """A place that is not there now may be there later, so clients are told to come back."""
    late = [comes(at) for at in (1.0, 300.0, 599.0)]
    outcome = replay(with_pin(day(*late), "a", "cellar"), BrainConfig())
    waits = outcome.apps[""]
    assert (waits.tasks, waits.answered, waits.refused, waits.failed) == (3, 0, 3, 0)
    assert sum(outcome.problems.values()) == 3


def test_a_task_that_is_late_is_not_answered() -> None:
    outcome = replay(day(comes(1.0, deadline_s=2.0)), BrainConfig())
    assert (outcome.apps[""].answered, outcome.apps[""].failed) == (0, 1)


def test_equal_days_come_out_equal() -> None:
    one = day(*(comes(7.0 * number, "ab"[number % 3 == 0]) for number in range(40)), slots=2)
    assert replay(one, BrainConfig()) == replay(one, BrainConfig())


def test_what_the_orchestrator_would_refuse_at_its_start_is_refused() -> None:
    pinned = with_pin(day(), "a", "garage/3090")
    contradiction = replace(
        pinned,
        settings=(
            *pinned.settings,
            *(
                replace(event, draft=replace(event.draft, mode=event.draft.mode.AVOID))
                for event in pinned.settings
                if isinstance(event, events.AssignmentSet)
            ),
        ),
    )
    with pytest.raises(FailedPrecondition, match="contradicts"):
        replay(contradiction, BrainConfig())
