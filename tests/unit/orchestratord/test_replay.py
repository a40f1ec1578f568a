"""A simulated day comes out as it has to, by what the world is made of."""

from dataclasses import replace

import pytest

from llorch.assignment_mode import Mode
from llorch.errors import FailedPrecondition, NotFound
from orchestratord.core import events
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.model import ModelSpec, Origin
from orchestratord.core.lives import task_life
from orchestratord.core.state import BrainConfig
from orchestratord.day_file import with_pin
from orchestratord.simulation.day import Arrival, Day
from orchestratord.simulation.outcome import DayOutcome, Waits
from orchestratord.simulation.plan import GIB, DevicePlan, HostPlan, ModelPlan, WorldPlan
from orchestratord.simulation.process import PREFILL_TIMES_FASTER
from orchestratord.simulation.replay import replay
from orchestratord.simulation.true_size import TrueSize

LOADS_S = 0.5 + 16 * GIB / 2000
CARD = DevicePlan("GPU-garage-0", "RTX 3090", 24 * GIB, 0, 1.0)
WORK = TrueSize(tokens_in=400, tokens_out=100)
RUNS_S = 100 / 40 + 400 / 40 / PREFILL_TIMES_FASTER


def day(*arrivals: Arrival, slots: int = 1, context: int = 4096, apps: tuple[App, ...] = ()) -> Day:
    """Two models that do not fit together on the only card, at 40 tokens per second."""
    models = tuple(ModelPlan(name, 16 * GIB, 16 * GIB, 40.0) for name in "ab")
    specs = [
        ModelSpec(name, f"file:/models/{name}.gguf", slots=slots, context=context, vram_claim_mib=16 * GIB)
        for name in "ab"
    ]
    settings = (
        *(events.ModelRegistered(spec, Origin.FILE, "a test") for spec in specs),
        *(events.AppDefined(app) for app in apps),
    )
    plan = WorldPlan(seed=1, hosts=(HostPlan("garage", (CARD,), 2000.0),), models=models)
    return Day(plan, settings, arrivals, lasts_s=600.0)


def comes(at: float, model: str = "a", app: str = "", **fields: object) -> Arrival:
    return Arrival(at, app, model, "", **({"work": WORK} | fields))  # type: ignore[arg-type]  # tests name fields


def with_second_card(one: Day, name: str = "RTX 3090", gib: int = 24) -> Day:
    attic = HostPlan("attic", (DevicePlan("GPU-attic-0", name, gib * GIB, 0, 1.0),), 2000.0)
    return replace(one, plan=one.plan.with_(hosts=(*one.plan.hosts, attic)))


def all_of(outcome: DayOutcome) -> Waits:
    """Of the only app; every task is in one of the counts."""
    (waits,) = outcome.apps.values()
    assert waits.tasks == waits.answered + waits.refused + waits.failed + waits.unfinished
    assert waits.tasks - waits.answered == sum(problem.count for problem in outcome.problems)
    return waits


def test_the_first_task_waits_for_the_load_and_the_next_one_for_the_slot() -> None:
    outcome = replay(day(comes(1.0), comes(100.0), comes(100.0)), BrainConfig())
    waits = all_of(outcome)
    assert waits.answered == 3
    assert waits.wait_longest_s == pytest.approx(LOADS_S, abs=0.5)
    assert waits.wait_median_s == pytest.approx(RUNS_S, abs=0.1)
    assert waits.answer_median_s == pytest.approx(2 * RUNS_S, abs=0.1)
    assert waits.answer_p95_s == pytest.approx(LOADS_S + RUNS_S, abs=0.5)
    assert (outcome.loads, outcome.evictions) == (1, 0)


def test_cards_are_as_busy_as_what_ran_there_and_hold_what_was_loaded() -> None:
    outcome = replay(day(*(comes(9.3 * number) for number in range(1, 61))), BrainConfig())
    (card,) = outcome.cards
    assert (card.place, card.name, card.models) == ("garage/0", "RTX 3090", ("a",))
    assert card.busy == pytest.approx(60 * RUNS_S / 600, rel=0.03)
    assert card.held == pytest.approx(16 / 24 * (600 - 10) / 600, abs=0.02)


def test_work_after_the_day_counts_too() -> None:
    """Of a burst at its end, and of a log, whose day ends with the last task."""
    burst = replace(day(*(comes(0.0) for _ in range(50))), lasts_s=0.0)
    (card,) = replay(burst, BrainConfig()).cards
    assert card.busy == pytest.approx(50 * RUNS_S / (50 * RUNS_S + LOADS_S), rel=0.05)


def test_a_second_card_saves_the_loads_of_models_that_take_turns() -> None:
    turns = day(*(comes(20.0 * number, "ab"[number % 2]) for number in range(25)))
    now, then = (replay(one, BrainConfig()) for one in (turns, with_second_card(turns)))
    assert now.loads > 10
    assert now.evictions == now.loads - 1
    assert (then.loads, then.evictions) == (2, 0)
    assert all_of(now).wait_median_s == pytest.approx(LOADS_S, rel=0.2)
    assert all_of(then).wait_median_s == 0.0
    assert {card.models for card in then.cards} == {("a",), ("b",)}


def test_more_clients_than_may_read_at_once_come_in_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each goes when it has read its answer."""
    monkeypatch.setattr(task_life, "MOST_READERS", 5)
    outcome = replay(day(*(comes(10.0 * number) for number in range(1, 30))), BrainConfig())
    assert all_of(outcome).answered == 29


def test_a_pin_of_an_operator_is_refused_where_it_can_not_be_met() -> None:
    one = with_second_card(day(comes(1.0)), "RTX 3060", 12)
    with pytest.raises(FailedPrecondition, match=r"needs 16384 MiB .* holds 12288 MiB"):
        replay(with_pin(one, "b", ("attic/3060",)), BrainConfig())
    with pytest.raises(NotFound, match="no node or pool is called 'cellar'"):
        replay(with_pin(one, "b", ("cellar",)), BrainConfig())


def test_a_pin_takes_the_place_of_that_of_the_settings_and_leaves_what_else_it_says() -> None:
    rule = Assignment("", "a", "", ("garage/3090",), Mode.PIN, keep_loaded=True, origin=Origin.FILE)
    kept = with_second_card(day(comes(300.0)))
    kept = replace(kept, settings=(*kept.settings, events.AssignmentSet(rule)))
    moved = replay(with_pin(kept, "a", ("attic",)), BrainConfig())
    assert all_of(moved).wait_longest_s == 0.0, "it is kept loaded"
    assert [card.models for card in moved.cards] == [(), ("a",)]
    anywhere = replay(with_pin(kept, "a", ("attic", "garage/3090")), BrainConfig())
    assert all_of(anywhere).answered == 1


def test_waits_are_told_of_each_app() -> None:
    apps = (App("one"), App("two"))
    outcome = replay(day(comes(1.0, app="one"), comes(1.0, "c", app="two"), apps=apps), BrainConfig())
    assert {name: (waits.answered, waits.wait_median_s is None) for name, waits in outcome.apps.items()} == {
        "one": (1, False),
        "two": (0, True),
    }


def test_a_client_that_finds_no_room_comes_back_and_its_wait_goes_on() -> None:
    tasks = [comes(1.0) for _ in range(8)]
    roomy, narrow = (all_of(replay(day(*tasks), BrainConfig(queue_capacity=room))) for room in (100, 4))
    assert roomy.answered == 8
    assert narrow.answered + narrow.refused == 8
    assert narrow.answered > 5
    assert narrow.wait_longest_s is not None
    assert narrow.wait_longest_s >= LOADS_S


def test_no_client_is_lost_that_would_come_back_after_the_day() -> None:
    """A place of a rule that is not there now may be there later, so clients are told to come back."""
    rule = Assignment("", "a", "", ("cellar",), Mode.PIN, origin=Origin.FILE)
    one = day(*(comes(at) for at in (1.0, 300.0, 599.0)))
    waits = all_of(replay(replace(one, settings=(*one.settings, events.AssignmentSet(rule))), BrainConfig()))
    assert (waits.tasks, waits.refused) == (3, 3)


@pytest.mark.parametrize("deadline_s", [2.0, LOADS_S + RUNS_S / 2], ids=["waits", "runs"])
def test_a_task_that_is_late_is_not_answered(deadline_s: float) -> None:
    outcome = replay(day(comes(1.0, deadline_s=deadline_s)), BrainConfig())
    assert all_of(outcome).failed == 1
    assert "deadline" in outcome.problems[0].message


def test_a_task_that_takes_longer_than_the_simulation_has_a_wait_and_a_reason() -> None:
    long = TrueSize(tokens_in=400, tokens_out=2_000_000)
    waits = all_of(replay(day(comes(1.0, work=long), comes(2.0)), BrainConfig()))
    assert (waits.tasks, waits.unfinished) == (2, 2)
    assert waits.wait_longest_s is not None
    assert waits.wait_longest_s > 6 * 3600


def test_a_prompt_that_is_longer_than_the_context_is_refused() -> None:
    outcome = replay(day(comes(1.0), comes(2.0, work=TrueSize(4096, 10))), BrainConfig())
    assert (all_of(outcome).answered, all_of(outcome).failed) == (1, 1)
    assert "4096 tokens" in outcome.problems[0].message


def test_equal_days_come_out_equal() -> None:
    one = day(*(comes(7.0 * number, "ab"[number % 3 == 0]) for number in range(40)), slots=2)
    assert replay(one, BrainConfig()) == replay(one, BrainConfig())


def test_what_the_orchestrator_would_refuse_at_its_start_is_refused() -> None:
    pin = Assignment("", "a", "", ("garage/3090",), Mode.PIN, origin=Origin.FILE)
    rules = (events.AssignmentSet(rule) for rule in (pin, replace(pin, mode=Mode.AVOID)))
    one = day()
    with pytest.raises(FailedPrecondition, match="contradicts"):
        replay(replace(one, settings=(*one.settings, *rules)), BrainConfig())
