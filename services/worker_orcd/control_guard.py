"""Which orchestrator may command this worker. Pure."""

from llorch.errors import FailedPrecondition, Reason, invalid_field


class ControlGuard:
    """Keeps the highest control epoch that was seen, and refuses lower ones.

    A worker serves one cluster at a time: another cluster is refused while the first one's stream is
    attached, and takes over when it is not.
    """

    def __init__(self) -> None:
        self._cluster_id = ""
        self._epoch = 0

    def check(self, cluster_id: str, epoch: int, *, attached: bool) -> None:
        """`attached`: an orchestrator of the current cluster holds its stream open."""
        if not cluster_id or epoch < 1:
            raise invalid_field("control", "needs a cluster_id and a control_epoch from 1")
        if cluster_id != self._cluster_id:
            if attached:
                raise self._refusal(
                    f"this worker serves cluster {self._cluster_id}, whose orchestrator is attached to it; end that one"
                )
            self._cluster_id, self._epoch = cluster_id, epoch
        elif epoch < self._epoch:
            raise self._refusal(
                f"control epoch {epoch} was superseded by {self._epoch}; a newer orchestrator is in charge"
            )
        self._epoch = epoch

    def _refusal(self, why: str) -> FailedPrecondition:
        """Says what this worker follows: an orchestrator of that cluster may then know how to go above it."""
        follows = {"cluster_id": self._cluster_id, "control_epoch": str(self._epoch)}
        return FailedPrecondition(Reason.STALE_EPOCH, why, metadata=follows)
