"""How fast the brain decides, and how well (`make bench-brain`).

Times are processor time of one thread; on a shared machine they are upper bounds. How well it decides is measured in
the simulation, in virtual time, so these figures are the same on every machine. `--quick` takes a tenth of everything.
The result goes to `bench-results/brain.json` and to the terminal.
"""

import argparse
import gc
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from brain_fleet import GIB, Fleet, Size
from rich.console import Console
from rich.table import Table

from orchestratord.core import events
from orchestratord.core.facts.task import TaskRequest
from orchestratord.simulation.violation import Violation
from support.simulation import scenarios, traces
from support.simulation.plan import draw
from support.simulation.world import World

RESULTS = Path(__file__).resolve().parents[2] / "bench-results"


@dataclass(frozen=True)
class Row:
    what: str
    value: str
    bar: str
    is_met: bool


@dataclass(frozen=True)
class Times:
    """In ms."""

    median: float
    p99: float


def times_of(actions: Iterator[Callable[[], object]]) -> Times:
    """Each action by itself; what makes the actions is not counted."""
    taken = []
    gc.collect()
    gc.disable()
    try:
        for action in actions:
            begin = time.thread_time_ns()
            action()
            taken.append((time.thread_time_ns() - begin) / 1e6)
    finally:
        gc.enable()
    return Times(statistics.median(taken), statistics.quantiles(taken, n=100)[98])


LONGEST_MS = 5.0
"""What one decision takes at most, since the brain hears nothing meanwhile."""


@dataclass(frozen=True)
class Kind:
    what: str
    most_ms: float
    """In the median."""
    actions: Callable[[int], Iterator[Callable[[], object]]]


def decisions(quick: bool) -> Iterator[Row]:
    """800 GPUs and 2,000 workers. Where it is not said otherwise all are busy, and 10,000 tasks wait."""
    busy = BusyFleet()
    for kind in (
        Kind("a slot gets free and goes to the next task", 0.2, busy.ends),
        Kind("a task comes and is placed", 0.5, busy.new_tasks),
        Kind("a task comes for a model that is not loaded", 1.5, busy.cold_tasks),
        Kind("a task comes that is larger than a device", 3.0, busy.large_tasks),
        Kind("a tick, with tasks for 16 models that are not loaded", LONGEST_MS, busy.ticks),
        Kind("a task comes for a model that is not loaded; all that are loaded are idle", 2.0, idle_workers),
    ):
        times = times_of(kind.actions(300 if quick else 3000))
        is_met = times.median <= kind.most_ms and times.p99 <= LONGEST_MS
        bar = f"≤ {kind.most_ms:g}, p99 ≤ {LONGEST_MS:g}"
        yield Row(f"decision: {kind.what} (ms)", f"{times.median:.3f}, p99 {times.p99:.3f}", bar, is_met)


class BusyFleet:
    def __init__(self) -> None:
        self._fleet = fleet = Fleet(Size())
        fleet.fill()
        for number in range(10_000):
            fleet.submit(number % fleet.size.models)

    def ends(self, rounds: int) -> Iterator[Callable[[], object]]:
        fleet = self._fleet
        for _ in range(rounds):
            event = fleet.ended()
            yield partial(fleet.handle, event)
            fleet.handle(events.TerminalPersisted(fleet.finished))
            fleet.submit(int(fleet.finished.removeprefix("task-")) % fleet.size.models)

    def new_tasks(self, rounds: int) -> Iterator[Callable[[], object]]:
        for number in range(rounds):
            request = self._fleet.request(number % self._fleet.size.models)
            yield partial(self._fleet.handle, events.TaskSubmitted(request))

    def cold_tasks(self, rounds: int) -> Iterator[Callable[[], object]]:
        """Every device is looked at for room, and for who could leave."""
        for number in range(rounds // 10):
            request = self._fleet.request(self._fleet.size.models + number % self._fleet.size.spare)
            yield from self._comes_and_goes(request)

    def large_tasks(self, rounds: int) -> Iterator[Callable[[], object]]:
        """It has to be split over two devices."""
        self._fleet.add_model("large", 40 * GIB)
        for _ in range(rounds // 10):
            yield from self._comes_and_goes(replace(self._fleet.request(0), model="large"))

    def ticks(self, rounds: int) -> Iterator[Callable[[], object]]:
        """Four a second, as the daemon has them."""
        fleet = self._fleet
        for number in range(16):
            fleet.submit(fleet.size.models + number)
        for _ in range(rounds // 10):
            fleet.now += 0.25
            yield partial(fleet.handle, events.Tick())

    def _comes_and_goes(self, request: TaskRequest) -> Iterator[Callable[[], object]]:
        yield partial(self._fleet.handle, events.TaskSubmitted(request))
        self._fleet.handle(events.TaskCancelled(request.task_id))


def idle_workers(rounds: int) -> Iterator[Callable[[], object]]:
    """Each task has some of them leave, for a model of its own; there are enough others."""
    fleet = Fleet(Size(spare=rounds // 10))
    for number in range(rounds // 10):
        request = fleet.request(fleet.size.models + number)
        yield partial(fleet.handle, events.TaskSubmitted(request))
        fleet.handle(events.TaskCancelled(request.task_id))


def events_per_second(quick: bool) -> Iterator[Row]:
    """The life of tasks beside heartbeats and ticks, as a busy home lab hears it."""
    fleet = Fleet(Size(nodes=4, devices=2, models=10, workers=16, spare=0))
    fleet.fill()
    for number in range(200):
        fleet.submit(number % 10)
    count = 0

    def tell(event: events.Event) -> None:
        nonlocal count
        count += 1
        fleet.handle(event)

    gc.collect()
    begin = time.thread_time_ns()
    for number in range(500 if quick else 5000):
        end = fleet.ended()
        task_id = fleet.finished
        tell(events.AttemptStarted(end.attempt_id))
        tell(events.AttemptFirstToken(end.attempt_id))
        tell(end)
        tell(events.TerminalPersisted(task_id))
        tell(events.TaskSubmitted(fleet.request(number % 10)))
        if number % 4 == 0:
            tell(fleet.heartbeat(number % 4))
            tell(events.Tick())
    per_s = count / (time.thread_time_ns() - begin) * 1e9
    yield Row("events per second, one core", f"{per_s:,.0f}", "≥ 10,000", per_s >= 10_000)


def growth(quick: bool) -> Iterator[Row]:
    """The same events with few and with many waiting."""
    medians = {}
    for waiting in (100, 100_000):
        fleet = Fleet(Size(nodes=4, devices=2, models=10, workers=16, spare=0))
        fleet.fill()
        for number in range(waiting):
            fleet.submit(number % 10)
        medians[waiting] = statistics.mean(times_of(kind).median for kind in _all_kinds(fleet, 200 if quick else 1000))
    ratio = medians[100_000] / medians[100]
    value = f"{ratio:.2f} ({medians[100]:.3f} → {medians[100_000]:.3f} ms)"
    yield Row("cost of an event, 100,000 against 100 waiting", value, "≤ 2", ratio <= 2)


def _all_kinds(fleet: Fleet, rounds: int) -> Iterator[Iterator[Callable[[], object]]]:
    def life() -> Iterator[Callable[[], object]]:
        for number in range(rounds):
            event = fleet.ended()
            yield partial(fleet.handle, event)
            fleet.handle(events.TerminalPersisted(fleet.finished))
            request = fleet.request(number % 10)
            yield partial(fleet.handle, events.TaskSubmitted(request))

    def cancels() -> Iterator[Callable[[], object]]:
        for number in range(rounds):
            request = fleet.request(number % 10)
            fleet.handle(events.TaskSubmitted(request))
            yield partial(fleet.handle, events.TaskCancelled(request.task_id))

    def reports() -> Iterator[Callable[[], object]]:
        for number in range(rounds):
            event = fleet.heartbeat(number % 4)
            yield partial(fleet.handle, event)
            yield partial(fleet.handle, events.Tick())

    yield life()
    yield cancels()
    yield reports()


def worlds(quick: bool) -> Iterator[Row]:
    """Random data centres in which things go wrong, with every invariant looked at after every event."""
    seeds, violations, begin = range(200 if quick else 2000), 0, time.thread_time_ns()
    for seed in seeds:
        try:
            World(draw(seed)).run()
        except Violation:
            violations += 1
    took_s = (time.thread_time_ns() - begin) / 1e9 * 2000 / len(seeds)
    value = f"{took_s:.0f} s, {violations} violations of {len(seeds)}"
    yield Row("2,000 simulated worlds", value, "≤ 90 s, 0", took_s <= 90 and not violations)


def fairness(quick: bool) -> Iterator[Row]:
    seeds = range(1, 2 if quick else 6)
    alone = statistics.median(scenarios.wait_beside(flood=False, seed=seed) for seed in seeds)
    beside = statistics.median(scenarios.wait_beside(flood=True, seed=seed) for seed in seeds)
    value = f"{beside / alone:.2f} × ({alone:.2f} s → {beside:.2f} s)"
    yield Row("wait beside an app that sends 100 times as much", value, "≤ 2 ×", beside <= 2 * alone)


def beside_batch(quick: bool) -> Iterator[Row]:
    seeds = range(1, 2 if quick else 6)
    for model, whose, most_s in (("a", "that model", 1.0), ("b", "another model", 2.0)):
        judged = [scenarios.beside_batch(model, seed) for seed in seeds]
        waits = [wait for one in judged for wait in one.waited_s]
        load_s = 0.0 if model == "a" else judged[0].load_s
        mean, longest = statistics.mean(waits), max(waits)
        value = f"{mean:.2f} s, at most {longest:.2f}"
        bar = f"mean ≤ {most_s:g} s" if not load_s else f"mean ≤ a load ({load_s:.1f} s) + {most_s:g} s"
        what = f"interactive beside batch that holds all slots: wait for {whose}"
        yield Row(what, value, bar, mean <= load_s + most_s)


def eviction(quick: bool) -> Iterator[Row]:
    seeds = range(1, 2 if quick else 6)
    policies = {"by cost": scenarios.BY_COST, "LRU": scenarios.LEAST_RECENTLY_USED, "idle": scenarios.IDLE_FOR_A_WHILE}
    loads = {
        name: statistics.mean(scenarios.swapping(policy, seed=seed).loads_per_1000 for seed in seeds)
        for name, policy in policies.items()
    }
    value = ", ".join(f"{name} {count:.0f}" for name, count in loads.items())
    is_met = loads["by cost"] < min(loads["LRU"], loads["idle"])
    yield Row("loads per 1,000 requests, six models, room for four", value, "fewer than both", is_met)


@dataclass(frozen=True)
class Against:
    """A trace by its seed, and the bars: parts of the mean, and of the 95th percentile, that the peer needs."""

    what: str
    trace: Callable[[int], traces.Trace]
    mean: float
    p95: float = math.inf


AGAINST_LRU = (
    Against("four cards, twelve models, 0.6 tasks a second", partial(traces.mixed, per_s=0.6), 0.95, 0.95),
    Against("four cards, twelve models, a task a second", partial(traces.mixed, per_s=1.0), 1.02, 1.05),
    Against(
        "one card, twelve models, a task every 6 s",
        partial(traces.now_and_then, count=1000, every_s=6.0, steep=0.8),
        1.0,
    ),
    Against("two models in turns on a card that has room for one", traces.two_large, 0.9),
)


def against_lru(quick: bool) -> Iterator[Row]:
    """The same work in the same world, with the peer in the brain's place: time from coming to the end."""
    for one in AGAINST_LRU:
        both = [
            (traces.lived(one.trace(seed)), traces.lived(one.trace(seed), by_peer=True))
            for seed in range(1, 2 if quick else 9)
        ]
        mean, peer_mean = (statistics.mean(lived.mean_s for lived in each) for each in zip(*both, strict=True))
        p95, peer_p95 = (statistics.mean(lived.p95_s for lived in each) for each in zip(*both, strict=True))
        are_answered = not any(lived.unanswered for pair in both for lived in pair)
        value = (
            f"{mean / peer_mean:.3f} ({mean:.1f} / {peer_mean:.1f} s), p95 {p95 / peer_p95:.3f} "
            f"({p95:.1f} / {peer_p95:.1f} s)"
        )
        bar = f"≤ {one.mean:g}" + (f", p95 ≤ {one.p95:g}" if one.p95 < math.inf else "")
        is_met = mean <= one.mean * peer_mean and p95 <= one.p95 * peer_p95 and are_answered
        yield Row(f"against LRU: {one.what}", value, bar, is_met)


MOST_LOADS = 160


def loads(quick: bool) -> Iterator[Row]:
    for drifts in (False, True):
        trace = partial(traces.now_and_then, count=1500, every_s=20.0, steep=1.0, drifts=drifts, at_home=True)
        both = [
            (traces.lived(trace(seed)), traces.lived(trace(seed), by_peer=True)) for seed in range(1, 2 if quick else 9)
        ]
        brain, peer = (statistics.mean(lived.loads_per_1000 for lived in each) for each in zip(*both, strict=True))
        what = "drifting" if drifts else "steady"
        value = f"{brain:.0f} (LRU {peer:.0f})"
        yield Row(
            f"loads per 1,000 requests, twelve models, {what} demand", value, f"≤ {MOST_LOADS}", brain <= MOST_LOADS
        )


def calm(quick: bool) -> Iterator[Row]:
    """What four apps wait for their starts, in the median."""
    for at_home, where in ((True, "four cards"), (False, "one card")):
        alone, beside = (
            statistics.mean(
                statistics.median(
                    traces.lived(traces.calm_apps(seed, flood=flood, at_home=at_home)).waited_s(
                        lambda arrival: arrival.app in traces.CALM
                    )
                )
                for seed in range(1, 2 if quick else 4)
            )
            for flood in (False, True)
        )
        most_s, bar = (alone + 3, "≤ alone + 3 s") if at_home else (2.5 * alone, "≤ 2.5 × alone")
        value = f"{beside:.1f} s (alone {alone:.1f} s)"
        yield Row(f"wait beside a flood, twelve models on {where}", value, bar, beside <= most_s)


def large(quick: bool) -> Iterator[Row]:
    lived = [traces.lived(traces.large_beside_small(seed)) for seed in range(1, 2 if quick else 4)]
    waits = [wait for one in lived for wait in one.waited_s(lambda arrival: arrival.model == traces.LARGE)]
    unanswered = sum(one.unanswered for one in lived)
    value = f"mean {statistics.mean(waits):.0f} s, at most {max(waits):.0f} s, {unanswered} not done"
    is_met = statistics.mean(waits) <= 45 and max(waits) <= 70 and not unanswered
    yield Row("wait for a model of 20 GiB beside eight of 7 GiB on one card", value, "mean ≤ 45, ≤ 70 s, all", is_met)


def longest_wait(quick: bool) -> Iterator[Row]:
    """Of a calm app's tasks beside floods, as part of what its longest wait may be."""
    seeds = range(10 if quick else 100)
    parts = []
    for trace in map(traces.flooded, seeds):
        waits = traces.lived(trace).waited_s(lambda arrival: arrival.app in traces.CALM)
        parts.append(max(waits) / traces.longest_wait_s(trace))
    what = f"longest wait for a model beside floods, {len(seeds)} worlds, as part of its bound"
    yield Row(what, f"{max(parts):.2f} (median {statistics.median(parts):.2f})", "≤ 1", max(parts) <= 1)


def shares(quick: bool) -> Iterator[Row]:
    found = [scenarios.shares(seed) for seed in range(1, 2 if quick else 4)]
    off = max(abs(one[app] - weight) for one in found for app, weight in scenarios.WEIGHTS.items())
    yield Row("share of GPU time of five apps, off their weights", f"{off:.3f} at most", "≤ 0.02", off <= 0.02)


def predictions(quick: bool) -> Iterator[Row]:
    judged = [scenarios.predictions(seed) for seed in range(1, 2 if quick else 6)]
    error = statistics.median(one.median_error for one in judged)
    brier = statistics.mean(one.brier for one in judged)
    base = statistics.mean(one.brier_of_base_rate for one in judged)
    yield Row("predicted start, median error after 50 tasks", f"{error:.0%}", "≤ 25%", error <= 0.25)
    yield Row("on time, Brier score", f"{brier:.3f} (base rate {base:.3f})", "below base rate", brier < base)


MEASUREMENTS: tuple[Callable[[bool], Iterator[Row]], ...] = (
    decisions,
    events_per_second,
    growth,
    worlds,
    fairness,
    beside_batch,
    eviction,
    against_lru,
    loads,
    calm,
    large,
    longest_wait,
    shares,
    predictions,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=[measure.__name__ for measure in MEASUREMENTS])
    arguments = parser.parse_args()
    chosen = [measure for measure in MEASUREMENTS if arguments.only in (None, measure.__name__)]
    rows = [row for measure in chosen for row in measure(arguments.quick)]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "brain.json").write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    table = Table("what", "measured", "bar", "met")
    for row in rows:
        table.add_row(row.what, row.value, row.bar, "yes" if row.is_met else "NO")
    Console().print(table)


if __name__ == "__main__":
    main()
