"""The reports of one link, each completed by earlier ones."""

from collections.abc import Callable

from llama_orch.v2 import node_link_pb2
from llorch.errors import invalid_field
from orchestratord.convert import report_limits
from orchestratord.convert.nodes import to_snapshot
from orchestratord.core.facts.fleet import MOST_WORKERS, Snapshot

_MOST_TOLD = 64


class LinkSnapshots:
    """If only its stats have changed, a report has nothing else of a worker; the rest is remembered here.

    `warn` is told what of a report was cut, once for each sentence and link.
    """

    def __init__(self, warn: Callable[[str], None] = lambda _: None) -> None:
        self._workers: dict[str, node_link_pb2.WorkerReport] = {}
        self._warn = warn
        self._told: set[str] = set()

    def take(self, message: node_link_pb2.NodeSnapshot) -> Snapshot:
        """Raises InvalidArgument for one of more than a node may have."""
        for sentence in report_limits.fit(message):
            self._tell(sentence)
        if message.full:
            self._workers.clear()
        for activity in message.worker_activity:
            known = self._workers.get(activity.worker_id)
            if known is not None:
                report = message.workers.add()
                report.CopyFrom(known)
                report.worker.stats.CopyFrom(activity.stats)
        self._workers.update((report.worker.spec.worker_id, report) for report in message.workers)
        if len(self._workers) > 2 * MOST_WORKERS:  # those that ended since the last full report are among them
            raise invalid_field(
                "snapshot.workers", f"has told of {len(self._workers)} workers since its last full report"
            )
        return to_snapshot(message)

    def _tell(self, sentence: str) -> None:
        if sentence not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(sentence)
            self._warn(sentence)
