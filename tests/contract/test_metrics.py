"""Names of metrics are a contract: alerts and dashboards are built on them."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from llorch.clock import SystemClock
from llorch.errors import FailedPrecondition, Reason
from llorch.metrics_server import MetricsServer
from support.orchestrator_metrics import orchestrator_with_everything
from worker_orcd.engine_info import EngineStats
from worker_orcd.engines.sim.engine import SimEngine, SimShape
from worker_orcd.engines.sim.parameters import SimParameters
from worker_orcd.metrics import LABELS, registry_of
from worker_orcd.run_keeper import RunKeeper
from worker_orcd.run_spec import RunSpec
from worker_orcd.run_table import RunTable
from worker_orcd.step_times import StepTimes

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
SERVICES = Path(__file__).parents[2] / "services"
ROW = re.compile(r"^\| `(?P<name>llorch_[a-z_]+)` \| (?P<type>\w+) \|(?P<labels>[^|]*)\|", re.MULTILINE)
NAME = re.compile(r"llorch_[a-z]+(_[a-z]+)*")
UNITS = ("_seconds", "_bytes", "_tokens", "_total", "_tasks", "_ratio", "_celsius", "_watts")
WITHOUT_UNIT = {
    "llorch_worker_slots",
    "llorch_worker_slots_busy",
    "llorch_worker_runs_kept",
    "llorch_worker_warm_prefixes",
    "llorch_admission_share",
    "llorch_on_time_brier_score",
    "llorch_placement_candidates_considered",
    "llorch_nodes",
    "llorch_model_workers",
    "llorch_replica_slots",
    "llorch_replica_slots_busy",
    "llorch_device_usable",
    "llorch_device_ecc_errors",
    "llorch_device_throttled",
}
"""Counts of things that have no unit, shares, and flags."""


@dataclass(frozen=True)
class Documented:
    type: str
    labels: frozenset[str]


def documented(daemon: str) -> dict[str, Documented]:
    """The rows of a daemon's section."""
    section = DOCUMENT.read_text().partition(f"## {daemon}\n")[2].partition("\n## ")[0]
    return {
        row["name"]: Documented(row["type"], frozenset(re.findall(r"`(\w+)`", row["labels"])))
        for row in ROW.finditer(section)
    }


class TimedEngine(SimEngine):
    """With a step that took a tenth of a second, as an engine that computes has them."""

    def stats(self) -> EngineStats:
        times = StepTimes()
        times.observe(0.1)
        return EngineStats(steps=1, tokens_generated=5, step_times=times)


@pytest.fixture
async def keeper() -> AsyncIterator[RunKeeper]:
    engine = TimedEngine(SimParameters(load_s=0.0), SimShape('m"\n', slots=2, context_per_slot=512))
    await engine.load()
    clock = SystemClock()
    keeper = RunKeeper(engine, RunTable(clock, 2), clock)
    for name, spec in (("a", RunSpec(prompt="x", max_tokens=3)), ("b", RunSpec(inputs=("x",)))):
        run = await keeper.start(name, b"", spec)
        async with asyncio.timeout(5):
            while run.end is None:
                await asyncio.sleep(0)
    yield keeper
    await engine.close()


@pytest.fixture
def families(keeper: RunKeeper) -> list[Metric]:
    return list(registry_of(keeper).collect())


def full_name(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


@pytest.mark.req("OPS-6001")
def test_every_metric_is_documented_and_the_other_way_round(families: list[Metric]) -> None:
    rows = documented("worker-orcd")
    assert rows
    assert {name: row.type for name, row in rows.items()} == {full_name(metric): metric.type for metric in families}


def test_names_tell_their_unit(families: list[Metric]) -> None:
    for metric in families:
        assert metric.documentation.endswith(".")
    for name in {**documented("worker-orcd"), **documented("orchestratord")}:
        assert NAME.fullmatch(name)
        assert name.endswith(UNITS) != (name in WITHOUT_UNIT), name


def test_labels_are_those_of_the_document(families: list[Metric]) -> None:
    rows = documented("worker-orcd")
    for metric in families:
        assert metric.samples
        for sample in metric.samples:
            assert set(sample.labels) - {"le"} == {*LABELS, *rows[full_name(metric)].labels}


@pytest.mark.req("OPS-6001")
def test_what_the_orchestrator_says_is_what_the_document_says() -> None:
    """Every metric has samples here, so that its labels are seen as well."""
    said = {full_name(metric): metric for metric in orchestrator_with_everything().families()}
    rows = documented("orchestratord")
    assert {name: row.type for name, row in rows.items()} == {name: metric.type for name, metric in said.items()}
    for name, metric in said.items():
        assert metric.documentation.endswith("."), name
        assert metric.samples, name
        assert {frozenset(sample.labels) - {"le"} for sample in metric.samples} == {rows[name].labels}, name


def test_no_other_code_makes_metrics() -> None:
    """A metric that is made elsewhere would be in no list that these tests compare."""
    makers = re.compile(r"prometheus_client")
    found = {str(file.relative_to(SERVICES)) for file in SERVICES.rglob("*.py") if makers.search(file.read_text())}
    assert found == {
        "llorch/metrics_server.py",
        "orchestratord/metrics/collector.py",
        "orchestratord/metrics/families.py",
        "orchestratord/metrics/fleet_families.py",
        "worker_orcd/metrics.py",
    }


def test_alerts_of_the_operations_manual_have_their_names() -> None:
    assert {
        "llorch_admissions_total",
        "llorch_admission_share",
        "llorch_deadlines_met_ratio",
        "llorch_placement_decisions_total",
        "llorch_placement_candidates_considered",
        "llorch_prediction_error_ratio",
        "llorch_device_power_watts",
        "llorch_device_temperature_celsius",
        "llorch_device_ecc_errors",
        "llorch_device_throttled",
    } <= documented("orchestratord").keys()


async def test_a_scrape_tells_what_happened(keeper: RunKeeper) -> None:
    server = MetricsServer("127.0.0.1:0", registry_of(keeper))
    address = server.start()
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"http://{address}/metrics")
            assert (await http.get(f"http://{address}/other")).status_code == 404
    finally:
        await asyncio.to_thread(server.stop)
    found = {
        (sample.name, sample.labels.get("finish_reason"), sample.labels.get("le")): sample.value
        for metric in text_string_to_metric_families(answer.text)
        for sample in metric.samples
    }
    assert found["llorch_worker_runs_total", "length", None] == 1
    assert found["llorch_worker_runs_total", "embedded", None] == 1
    assert found["llorch_worker_tokens_generated_total", None, None] == 5
    assert found["llorch_worker_step_seconds_bucket", None, "0.05"] == 0
    assert found["llorch_worker_step_seconds_bucket", None, "0.1"] == 1
    assert found["llorch_worker_step_seconds_count", None, None] == 1


async def test_with_a_token_every_caller_has_to_show_it(keeper: RunKeeper) -> None:
    server = MetricsServer("127.0.0.1:0", registry_of(keeper), token="secret")
    address = server.start()
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            url = f"http://{address}/metrics"
            assert (await http.get(url)).status_code == 401
            assert (await http.get(url, headers={"Authorization": "Bearer wrong"})).status_code == 401
            assert (await http.get(url, headers={"Authorization": "Bearer secret"})).status_code == 200
    finally:
        await asyncio.to_thread(server.stop)


def test_other_machines_get_no_metrics_without_a_token(keeper: RunKeeper) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        MetricsServer("0.0.0.0:0", registry_of(keeper))
    assert refused.value.reason is Reason.TOKEN_MISSING
