"""What reports say: differences between states, and what is told until it is acknowledged."""

import io
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import pytest

from llorch.device_kind import DeviceKind
from llorch.gguf.facts import read_facts
from llorch.gguf.header import read_header
from llorch.worker_state import WorkerState
from pool_managerd.convert.snapshots import to_snapshot
from pool_managerd.devices.device import Device
from pool_managerd.link.backoff import Backoff
from pool_managerd.link.report_plan import ReportPlan
from pool_managerd.models.located_model import LocatedModel
from pool_managerd.node_state import NodeState, changes, is_empty
from pool_managerd.workers.status import WorkerStatus
from support.gguf_writer import smallest_model
from support.large_node import large_node
from support.worker_host import worker_spec

DEVICE = Device("sim-0", DeviceKind.SIMULATED, 0, "RTX 3090", 24576, 0, 0)


def worker(worker_id: str, state: WorkerState = WorkerState.READY) -> WorkerStatus:
    return WorkerStatus(worker_spec("file:/tiny.gguf", worker_id), state, datetime(2026, 1, 1, tzinfo=UTC))


def state(*workers: WorkerStatus, device: Device = DEVICE) -> NodeState:
    return NodeState(devices=(device,), workers=workers)


def test_nothing_new_is_an_empty_difference() -> None:
    assert is_empty(changes(state(worker("a")), state(worker("a"))))


def test_a_difference_holds_what_changed_and_nothing_else() -> None:
    news = changes(state(worker("a"), worker("b")), state(worker("a"), worker("b", WorkerState.STOPPING)))
    assert not news.full
    assert [status.spec.worker_id for status in news.workers] == ["b"]
    assert news.devices == ()
    hotter = replace(DEVICE, temperature_c=80)
    assert changes(state(), state(device=hotter)).devices == (hotter,)


def test_a_worker_that_only_does_more_is_told_by_its_stats_alone() -> None:
    before, busier = worker("a"), replace(worker("a"), stats=b"more")
    news = changes(state(before, worker("b")), state(busier, worker("b")))
    assert (news.workers, news.active) == ((), (busier,))
    assert not is_empty(news)
    stopping = replace(busier, state=WorkerState.STOPPING)
    assert changes(state(before), state(stopping)).workers == (stopping,)
    assert changes(state(), state(busier)).workers == (busier,)


@pytest.mark.req("POOL-2007")
@pytest.mark.parametrize("busy_workers", [0, 2, 16])
def test_a_heartbeat_of_a_large_node_is_small_and_cheap(busy_workers: int) -> None:
    """8 GPUs, all of them warmer or cooler than a second ago, and 16 workers: 4 KB and 2 ms of a processor."""
    plan = ReportPlan()
    spent_s, sizes = [], []
    for second in range(30):
        now = large_node(second, busy_workers=busy_workers)
        began = time.process_time()
        news = plan.next_report(now, float(second))
        told = to_snapshot(news, "garage", with_endpoints=True).SerializeToString()
        spent_s.append(time.process_time() - began)
        sizes.append(len(told))
    assert max(sizes[1:]) <= 4096
    assert median(spent_s[1:]) <= 0.002


def test_what_vanished_is_told_by_a_full_state() -> None:
    assert changes(state(worker("a")), state()).full
    assert changes(state(), replace(state(), devices=())).full


def test_models_are_told_in_full() -> None:
    content = smallest_model()
    facts = read_facts([read_header(io.BytesIO(content), len(content))])
    model = LocatedModel("file:/tiny.gguf", Path("/tiny.gguf"), facts)
    news = changes(state(), replace(state(), models=(model,)))
    assert news.full
    assert news.models == (model,)


@pytest.mark.req("POOL-2007")
def test_the_first_report_is_full_and_so_is_one_every_30_seconds() -> None:
    plan = ReportPlan()
    full_at = [second for second in range(100, 200) if plan.next_report(state(), float(second)).full]
    assert full_at == [100, 130, 160, 190]
    assert plan.report_seq == 100


@pytest.mark.req("POOL-2007")
def test_an_end_is_settled_by_the_acknowledgement_of_a_report_that_had_it() -> None:
    plan = ReportPlan()
    plan.next_report(state(worker("a")), 0.0)
    plan.next_report(state(worker("a", WorkerState.FAILED)), 1.0)
    assert plan.acknowledged(1) == []
    assert plan.acknowledged(2) == ["a"]
    assert plan.acknowledged(3) == []


def test_retries_come_slower_and_never_slower_than_the_bound() -> None:
    backoff = Backoff(0.1, 3.0)
    waits = [backoff.next_s() for _ in range(20)]
    assert 0.05 <= waits[0] <= 0.1
    assert all(1.5 <= wait <= 3.0 for wait in waits[5:])
    backoff.reset()
    assert backoff.next_s() <= 0.1
