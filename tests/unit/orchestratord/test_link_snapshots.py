"""Reports that say of a worker only what it does now are made whole by the reports before them."""

from llama_orch.v2 import node_link_pb2, worker_pb2
from llorch.worker_state import WorkerState
from orchestratord.convert.link_snapshots import LinkSnapshots


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
