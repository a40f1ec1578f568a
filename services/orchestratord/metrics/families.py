"""Metrics in Prometheus' form, of what was counted and of how things stand."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from orchestratord.core.state import BrainState
from orchestratord.metrics.tallies import Histogram, Tallies

Labels = tuple[str, ...]
LabelsT = TypeVar("LabelsT", bound=Labels)


def counted(tallies: Tallies) -> Iterator[Metric]:
    yield counter("brain_events", "Events that the brain has handled.", tallies.events)
    yield _counter(
        "admissions", "Tasks that came, by whether they were let in.", ("priority", "reason"), tallies.admissions
    )
    yield _counter("tasks_ended", "Tasks that ended, by how.", ("priority", "state"), tallies.ended)
    yield _counter("deadlines", "Tasks with a deadline that ended.", ("priority", "outcome"), tallies.deadlines)
    yield _counter("tokens", "Tokens of tasks that were answered.", ("model", "direction"), tallies.tokens)
    yield _counter(
        "placement_decisions", "Decisions where to go.", ("outcome", "pinned", "fallback"), tallies.decisions
    )
    yield _counter("model_loads", "Loads that came to an end.", ("model", "outcome"), tallies.loads)
    yield _counter("worker_stops", "Workers that were told to end, by why.", ("why",), tallies.stops)
    yield _histogram("queue_wait_seconds", "From admission to the start of the work.", "priority", tallies.queue_wait)
    yield _histogram("first_token_seconds", "From admission to the first token.", "priority", tallies.first_token)
    yield _histogram(
        "prediction_error_ratio", "Error of predictions, relative to what came.", "kind", tallies.prediction_error
    )
    yield _histogram("load_seconds", "From the start of a worker until it is ready.", None, {"": tallies.load_seconds})
    yield _histogram(
        "placement_candidates_considered", "Places that a decision looked at.", None, {"": tallies.considered}
    )


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
    return _counter(name, text, (), {(): count})


def _counter(name: str, text: str, labels: Sequence[str], counts: Mapping[LabelsT, int]) -> Metric:
    family = CounterMetricFamily(f"llorch_{name}", text, labels=labels)
    for values, count in sorted(counts.items()):
        family.add_metric(values, count)
    return family


def _histogram(name: str, text: str, label: str | None, found: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(f"llorch_{name}", text, labels=() if label is None else (label,))
    for value, histogram in sorted(found.items()):
        labels = () if label is None else (value,)
        family.add_metric(labels, _buckets(histogram), sum_value=histogram.sum)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds: Iterable[str] = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
    return list(zip(bounds, itertools.accumulate(histogram.counts), strict=True))
