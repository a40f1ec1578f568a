"""What the orchestrator counts, and that it never counts without bounds."""

import asyncio
from collections.abc import Mapping

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from llorch.errors import LlorchError
from llorch.metrics_server import MetricsServer
from llorch.worker_spec import WorkerSpec
from orchestratord.core import effects, events
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.fleet import Leaving, Worker
from orchestratord.core.facts.queue_room import QueuePolicy
from orchestratord.core.state import BrainConfig
from orchestratord.metrics.fleet_families import ReplicaNumbers
from orchestratord.metrics.tallies import MOST_VALUES, OTHER, Bounded
from orchestratord.metrics.window import BUCKET_S, BUCKETS, Window
from support.brain_driver import gpu
from support.orchestrator_metrics import WatchedDriver, orchestrator_with_everything

Samples = Mapping[tuple[str, ...], float]


def samples(driver: WatchedDriver, name: str) -> Samples:
    """By the values of the labels, in the order of the labels' names."""
    text = driver.metrics().text().decode()
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def serving(**options: object) -> WatchedDriver:
    driver = WatchedDriver(**options)  # type: ignore[arg-type]  # tests name fields
    driver.add_model(slots=1, context=4096, vram_claim_mib=4096)
    driver.add_node("garage", gpu())
    return driver


def refused(driver: WatchedDriver, **options: object) -> None:
    with pytest.raises(LlorchError):
        driver.submit(**options)  # type: ignore[arg-type]  # tests name fields


def test_admissions_are_counted_by_priority_and_reason() -> None:
    driver = serving(config=BrainConfig(queue_capacity=1))
    driver.submit()
    refused(driver)
    refused(driver, model="nope")
    refused(driver, priority="urgent")
    assert samples(driver, "llorch_admissions_total") == {
        ("interactive", "admitted"): 1,
        ("interactive", "queue_full"): 1,
        ("interactive", "model_not_found"): 1,
        ("unknown", "invalid_field"): 1,
    }


@pytest.mark.parametrize("queue_policy", list(QueuePolicy))
def test_admissions_of_an_app_are_counted_in_its_own_class(queue_policy: QueuePolicy) -> None:
    driver = serving(config=BrainConfig(queue_capacity=1, queue_policy=queue_policy))
    driver.handle(events.AppDefined(App("nightly", priority="batch")))
    options = {"app": "nightly", "priority": ""}
    if queue_policy is QueuePolicy.REJECT:
        driver.submit(**options)
        refused(driver, **options)
        assert samples(driver, "llorch_admissions_total") == {("batch", "admitted"): 1, ("batch", "queue_full"): 1}
    else:  # it bounds both classes together
        for _ in range(3):
            driver.submit(**options)
        assert samples(driver, "llorch_admissions_total") == {("batch", "admitted"): 3}
        assert samples(driver, "llorch_tasks_ended_total") == {("batch", "failed"): 1}
    refused(driver, model="nope", **options)
    assert samples(driver, "llorch_admissions_total")["batch", "model_not_found"] == 1


def test_a_repeated_request_is_admitted_once() -> None:
    driver = serving()
    for number in (1, 2):
        driver.submit(task_id=f"task-{number}", request_id="r")
    assert samples(driver, "llorch_admissions_total") == {("interactive", "admitted"): 1}


def test_an_answer_is_counted_with_its_tokens_and_times() -> None:
    driver = serving()
    driver.submit()
    driver.advance(2.0)
    driver.load()
    start = driver.last(effects.StartRun)
    driver.handle(events.AttemptStarted(start.attempt_id))
    driver.advance(1.0)
    driver.handle(events.AttemptFirstToken(start.attempt_id))
    driver.finish_attempt(start.attempt_id, tokens_out=3)
    assert samples(driver, "llorch_tasks_ended_total") == {("interactive", "completed"): 1}
    assert samples(driver, "llorch_tokens_total") == {("in", "coder"): 5, ("out", "coder"): 3, ("cached", "coder"): 0}
    assert samples(driver, "llorch_queue_wait_seconds_sum") == {("interactive",): 2.0}
    assert samples(driver, "llorch_first_token_seconds_sum") == {("interactive",): 3.0}
    assert samples(driver, "llorch_load_seconds_count") == {(): 1}


def test_deadlines_met_is_the_share_of_the_last_minutes() -> None:
    driver = serving()
    for deadline_s in (100.0, 100.0, 1.0):
        driver.submit(deadline_s=deadline_s)
    driver.advance(1.5)
    driver.load()
    for _ in range(2):
        driver.finish_attempt(driver.last(effects.StartRun).attempt_id)
    assert samples(driver, "llorch_deadlines_total") == {("met", "interactive"): 2, ("missed", "interactive"): 1}
    assert samples(driver, "llorch_deadlines_met_ratio") == {("interactive",): pytest.approx(2 / 3)}
    driver.now += BUCKET_S * (BUCKETS + 1)
    driver.handle(events.Tick())
    assert samples(driver, "llorch_deadlines_met_ratio") == {}


def test_loads_that_fail_or_are_stopped_are_told_apart() -> None:
    driver = WatchedDriver()
    spec = WorkerSpec("worker-1", "coder", "file:/c", ("GPU-1",), 1, 512, reservation_mib=(1,))
    driver.emit(effects.StartWorker("garage", spec), effects.DetachWorker("worker-1"))
    driver.emit(effects.StartWorker("garage", spec), effects.StopWorker("garage", "worker-1", Leaving.ASKED))
    driver.emit(effects.DetachWorker("worker-1"), effects.DetachWorker("worker-1"))
    assert samples(driver, "llorch_model_loads_total") == {("coder", "failed"): 1, ("coder", "stopped"): 1}
    assert samples(driver, "llorch_worker_stops_total") == {("asked",): 1}


def test_the_brier_score_judges_probabilities() -> None:
    driver = WatchedDriver()
    driver.emit(effects.OnTimeJudged(1.0, met=True), effects.OnTimeJudged(0.5, met=False))
    assert samples(driver, "llorch_on_time_brier_score") == {(): 0.125}


@pytest.mark.req("OPS-6001")
def test_labels_that_others_decide_on_are_bounded() -> None:
    label = Bounded()
    assert {label(f"app-{number}") for number in range(10_000)} == {
        OTHER,
        *(f"app-{number}" for number in range(MOST_VALUES)),
    }
    assert label("app-1") == "app-1"


@pytest.mark.req("OPS-6001")
def test_restarted_workers_make_no_new_series() -> None:
    numbers = ReplicaNumbers()
    seen = set()
    for generation in range(1000):
        workers = [_worker(f"worker-{generation}"), _worker(f"worker-{generation + 1}")]
        now = numbers.update(workers)
        assert len(set(now.values())) == 2
        seen |= set(now.values())
    assert seen == {"0", "1"}


def test_replicas_keep_their_numbers_while_they_live() -> None:
    numbers = ReplicaNumbers()
    assert numbers.update([_worker("a"), _worker("b")]) == {"a": "0", "b": "1"}
    assert numbers.update([_worker("b"), _worker("c"), _worker("x", "other")]) == {"b": "1", "c": "0", "x": "0"}


def test_a_window_forgets_what_is_older() -> None:
    window: Window[str] = Window()
    for now in range(0, 1000, 10):
        window.add("a", 1, now)
    assert window.totals(999.0) == {"a": 28}  # the last nine whole buckets of three, and one in the tenth
    assert window.totals(10_000.0) == {}


async def test_the_port_answers_what_the_loop_knows() -> None:
    server = MetricsServer("127.0.0.1:0", orchestrator_with_everything().registry(asyncio.get_running_loop()))
    address = server.start()
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"http://{address}/metrics")
    finally:
        await asyncio.to_thread(server.stop)
    assert 'llorch_device_power_watts{card="RTX 3090",device="GPU-1",node="garage"} 200.0' in answer.text


def _worker(worker_id: str, model: str = "coder") -> Worker:
    return Worker(WorkerSpec(worker_id, model, "file:/c", ("GPU-1",), 1, 512, reservation_mib=(1,)), "garage", 0.0)
