"""The worker's Prometheus metrics. They are read from existing counters when Prometheus scrapes.

What each means is in docs/metrics.md; a test holds the two together.
"""

import itertools
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from worker_orcd.engine_info import EngineInfo, EngineStats
from worker_orcd.resident_memory import resident_mib
from worker_orcd.run_keeper import RunKeeper
from worker_orcd.step_times import BOUNDS_S, StepTimes

LABELS = ("engine", "engine_version", "model")
_MIB = 1024 * 1024


class WorkerMetrics(Collector):
    """Scraped on another thread than the one that counts: single numbers are right, their moments may differ."""

    def __init__(self, keeper: RunKeeper) -> None:
        self._keeper = keeper

    def collect(self) -> Iterator[Metric]:
        info, stats = self._keeper.engine.info(), self._keeper.engine.stats()
        labels = (info.engine, info.engine_version, info.model)
        for name, text, amount in _gauges(info, stats, self._keeper):
            gauge = GaugeMetricFamily(f"llorch_worker_{name}", text, labels=LABELS)
            gauge.add_metric(labels, amount)
            yield gauge
        for name, text, count in _counters(stats):
            counter = CounterMetricFamily(f"llorch_worker_{name}", text, labels=LABELS)
            counter.add_metric(labels, count)
            yield counter
        yield self._runs(labels)
        if stats.step_times is not None:
            yield _step_seconds(labels, stats.step_times)

    def _runs(self, labels: tuple[str, ...]) -> Metric:
        runs = CounterMetricFamily(
            "llorch_worker_runs", "Choices of runs that ended, by the reason.", labels=(*LABELS, "finish_reason")
        )
        for reason, count in sorted(self._keeper.finished.items()):
            runs.add_metric((*labels, reason), count)
        return runs


def registry_of(keeper: RunKeeper) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(keeper))
    return registry


def _gauges(info: EngineInfo, stats: EngineStats, keeper: RunKeeper) -> list[tuple[str, str, float]]:
    return [
        ("slots", "Requests that run at once.", info.slots),
        ("slots_busy", "Requests that occupy a slot.", stats.slots_busy + keeper.reading),
        ("runs_kept", "Runs that are kept, finished ones included.", len(keeper.table)),
        ("kv_used_tokens", "Tokens that the KV cache holds.", stats.kv_used_tokens),
        ("kv_capacity_tokens", "Tokens that the KV cache has place for.", info.slots * info.context_per_slot),
        ("warm_prefixes", "Conversations that need not be evaluated from their beginning.", stats.warm_prefixes),
        ("host_cache_bytes", "Memory of the host that holds idle conversations.", stats.host_cache_bytes),
        ("load_seconds", "Time that loading the model took.", info.load_ms / 1000),
        ("resident_memory_bytes", "Resident memory of the process.", resident_mib() * _MIB),
    ]


def _counters(stats: EngineStats) -> list[tuple[str, str, int]]:
    return [
        ("steps", "Steps of the engine.", stats.steps),
        ("tokens_generated", "Tokens generated.", stats.tokens_generated),
        ("tokens_prefilled", "Prompt tokens evaluated.", stats.tokens_prefilled),
        ("tokens_cached", "Prompt tokens that did not have to be evaluated.", stats.tokens_cached),
    ]


def _step_seconds(labels: tuple[str, ...], times: StepTimes) -> Metric:
    histogram = HistogramMetricFamily("llorch_worker_step_seconds", "Duration of the engine's steps.", labels=LABELS)
    bounds = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
    cumulated = itertools.accumulate(list(times.counts))
    histogram.add_metric(labels, list(zip(bounds, cumulated, strict=True)), sum_value=times.sum_s)
    return histogram
