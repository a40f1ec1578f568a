"""Metrics in Prometheus' form: counters, and gauges of the present state."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from orchestratord.core.state import BrainState
from orchestratord.metrics.tallies import Count, Distribution, Histogram, Tallies

Labels = tuple[str, ...]
LabelsT = TypeVar("LabelsT", bound=Labels)


def counted(tallies: Tallies) -> Iterator[Metric]:
    for tally in tallies.declared():
        yield _counter(tally) if isinstance(tally, Count) else _histogram(tally)


def recent(tallies: Tallies, now: float) -> Iterator[Metric]:
    """Of the last five minutes; absent where nothing happened in them."""
    tokens = tallies.recent_tokens.totals(now)
    of_class: Counter[str] = Counter()
    for (priority, _), amount in tokens.items():
        of_class[priority] += amount  # type: ignore[assignment]  # a Counter counts anything that adds up
    shares = {labels: amount / of_class[labels[0]] for labels, amount in tokens.items() if of_class[labels[0]]}
    yield gauge("admission_share", "Share of an app in the tokens of its class.", ("priority", "app"), shares)
    outcomes = tallies.recent_deadlines.totals(now)
    met = {
        (priority,): outcomes.get((priority, "met"), 0.0)
        / (outcomes.get((priority, "met"), 0.0) + outcomes.get((priority, "missed"), 0.0))
        for priority, _ in outcomes
    }
    yield gauge("deadlines_met_ratio", "Share of deadlines that were met.", ("priority",), met)
    chances = tallies.recent_chances.totals(now)
    brier = {(): chances["squared_error"] / chances["count"]} if chances.get("count") else {}
    yield gauge("on_time_brier_score", "Mean squared error of on_time_probability.", (), brier)


def queues(state: BrainState) -> Iterator[Metric]:
    depths = {(priority,): float(state.queue.depth(priority)) for priority in state.queue.priorities}
    yield gauge("queue_tasks", "Tasks that wait.", ("priority",), depths)
    capacities = {(priority,): float(state.queue.capacity) for priority in state.queue.priorities}
    yield gauge("queue_capacity_tasks", "Tasks that may wait.", ("priority",), capacities)
    yield gauge("running_tasks", "Tasks that run.", (), {(): float(state.running)})


def gauge(name: str, text: str, labels: Sequence[str], amounts: Mapping[LabelsT, float]) -> Metric:
    family = GaugeMetricFamily(f"llorch_{name}", text, labels=labels)
    for values, amount in sorted(amounts.items()):
        family.add_metric(values, amount)
    return family


def counter(name: str, text: str, count: int) -> Metric:
    tally = Count(name, text)
    tally.add(amount=count)
    return _counter(tally)


def _counter(tally: Count) -> Metric:
    family = CounterMetricFamily(f"llorch_{tally.name}", tally.text, labels=tally.labels)
    for values, count in sorted(tally.counts.items()):
        family.add_metric(values, count)
    return family


def _histogram(tally: Distribution) -> Metric:
    family = HistogramMetricFamily(f"llorch_{tally.name}", tally.text, labels=tally.labels)
    for values, histogram in sorted(tally.histograms.items()):
        family.add_metric(values, _buckets(histogram), sum_value=histogram.sum)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds: Iterable[str] = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
    return list(zip(bounds, itertools.accumulate(histogram.counts), strict=True))
