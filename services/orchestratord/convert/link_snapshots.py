"""The reports of one link, each completed by earlier ones."""

from llama_orch.v2 import node_link_pb2
from orchestratord.convert.nodes import to_snapshot
from orchestratord.core.facts.fleet import Snapshot


class LinkSnapshots:
    """If only its stats have changed, a report has nothing else of a worker; the rest is remembered here."""

    def __init__(self) -> None:
        self._workers: dict[str, node_link_pb2.WorkerReport] = {}

    def take(self, message: node_link_pb2.NodeSnapshot) -> Snapshot:
        if message.full:
            self._workers.clear()
        for activity in message.worker_activity:
            known = self._workers.get(activity.worker_id)
            if known is not None:
                report = message.workers.add()
                report.CopyFrom(known)
                report.worker.stats.CopyFrom(activity.stats)
        self._workers.update((report.worker.spec.worker_id, report) for report in message.workers)
        return to_snapshot(message)
