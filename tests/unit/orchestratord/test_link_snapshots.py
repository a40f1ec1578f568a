"""Reports that say of a worker only what it does now are made whole by the reports before them."""

from datetime import UTC, datetime

from llama_orch.v2 import node_link_pb2, saved_session_pb2, worker_pb2
from llorch.worker_state import WorkerState
from orchestratord.convert.link_snapshots import LinkSnapshots
from orchestratord.convert.state import node_to_proto
from orchestratord.core.facts.fleet import SavedSessions
from orchestratord.views import nodes
from support.brain_driver import BrainDriver


def whole(*worker_ids: str, full: bool = True) -> node_link_pb2.NodeSnapshot:
    def report(worker_id: str) -> node_link_pb2.WorkerReport:
        spec = worker_pb2.WorkerSpec(worker_id=worker_id, model="tiny")
        return node_link_pb2.WorkerReport(worker=worker_pb2.Worker(spec=spec, state=worker_pb2.WORKER_STATE_READY))

    return node_link_pb2.NodeSnapshot(full=full, workers=[report(worker_id) for worker_id in worker_ids])


def activity(worker_id: str, steps: int) -> node_link_pb2.NodeSnapshot:
    stats = worker_pb2.WorkerStats(steps=steps)
    return node_link_pb2.NodeSnapshot(worker_activity=[node_link_pb2.WorkerActivity(worker_id=worker_id, stats=stats)])


def test_stats_alone_become_a_whole_worker_with_these_stats() -> None:
    link = LinkSnapshots()
    link.take(whole("w-1", "w-2"))
    for steps in (7, 8):
        (worker,) = link.take(activity("w-1", steps)).workers
        assert (worker.spec.worker_id, worker.spec.model, worker.state) == ("w-1", "tiny", WorkerState.READY)
        assert isinstance(worker.report, worker_pb2.Worker)
        assert worker.report.stats.steps == steps


def test_a_worker_that_a_delta_brought_is_remembered_too() -> None:
    link = LinkSnapshots()
    link.take(whole("w-1"))
    link.take(whole("w-2", full=False))
    assert [worker.spec.worker_id for worker in link.take(activity("w-2", 1)).workers] == ["w-2"]


def test_stats_of_a_worker_that_a_full_report_left_out_are_dropped() -> None:
    link = LinkSnapshots()
    link.take(whole("w-1"))
    link.take(whole("w-2"))
    assert link.take(activity("w-1", 1)).workers == ()


def test_what_is_saved_of_sessions_is_shown_as_it_was_told_last() -> None:
    link, driver = LinkSnapshots(), BrainDriver()
    driver.add_node()
    assert link.take(whole()).saved_sessions is None, "as from a pool manager of an earlier release"
    assert link.take(node_link_pb2.NodeSnapshot()).saved_sessions is None
    most = 2**32 - 1
    told = saved_session_pb2.SavedSessions(sequences=most, size_mib=most, budget_mib=1)
    taken = link.take(node_link_pb2.NodeSnapshot(saved_sessions=told))
    assert taken.saved_sessions == SavedSessions(most, most, 1)
    for snapshot in (taken, link.take(activity("w-1", 1))):
        driver.report(snapshot=snapshot)
        view = nodes.view(driver.state, driver.state.fleet.node("garage"), driver.now)
        assert node_to_proto(view, datetime.now(UTC)).saved_sessions == told
    nothing = saved_session_pb2.SavedSessions()
    assert link.take(node_link_pb2.NodeSnapshot(saved_sessions=nothing)).saved_sessions == SavedSessions()
