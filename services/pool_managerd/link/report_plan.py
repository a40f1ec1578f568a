"""What each report of one link contains, and what its acknowledgements settle. Pure."""

from collections.abc import Sequence

from llorch.worker_state import TERMINAL
from pool_managerd.node_state import NodeState, changes

_FULL_EVERY_S = 30.0


class ReportPlan:
    """One per link. `report_seq` numbers its reports from 1; the first is full, as is one every 30 s.

    An ended worker is reported, and stays in full reports, until a report that had it was acknowledged.
    """

    def __init__(self) -> None:
        self.report_seq = 0
        self._last = NodeState()
        self._last_full_at = 0.0
        self._ends_told: dict[str, int] = {}

    def next_report(self, state: NodeState, now_s: float) -> NodeState:
        """`now_s` is monotonic."""
        is_due = self.report_seq == 0 or now_s - self._last_full_at >= _FULL_EVERY_S
        report = state if is_due else changes(self._last, state)
        self.report_seq += 1
        self._last = state
        if report.full:
            self._last_full_at = now_s
        for worker in report.workers:
            if worker.state in TERMINAL:
                self._ends_told.setdefault(worker.spec.worker_id, self.report_seq)
        return report

    def acknowledged(self, report_seq: int) -> Sequence[str]:
        """Ids of the workers whose end the orchestrator knows now."""
        settled = [worker_id for worker_id, told_in in self._ends_told.items() if told_in <= report_seq]
        for worker_id in settled:
            del self._ends_told[worker_id]
        return settled
