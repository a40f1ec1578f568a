"""What a refusal with STALE_EPOCH means to the operator of the orchestrator that was refused."""

from llorch.errors import FailedPrecondition

_TELLS_ITS_CLUSTER = "cluster_id"


def explained(node_id: str, refusal: FailedPrecondition) -> FailedPrecondition:
    """The refusal of a node's pool manager that could not be overcome, in words that say what to do."""
    if _TELLS_ITS_CLUSTER not in refusal.metadata:
        message = of_an_earlier_release(node_id)
    else:
        message = (
            f"node '{node_id}' follows another orchestrator now; end that one, or this one; `orchestrator` in "
            f"[pool_manager] there says which one the node registers with ({refusal.message})"
        )
    return FailedPrecondition(refusal.reason, message, metadata=refusal.metadata)


def of_a_node_that_leaves_at_once(node_id: str, *, tells_its_epoch: bool) -> str:
    """Of one that registers, and leaves without a report, again and again. It alone knows why."""
    leaves = f"the pool manager of node '{node_id}' registers, and leaves at once, again and again; its log says why"
    if tells_its_epoch:
        return leaves
    return f"{leaves}. Where it says that this orchestrator was superseded: {of_an_earlier_release(node_id)}"


def of_an_earlier_release(node_id: str) -> str:
    """Why a node of a release that does not tell its epoch is lost to an orchestrator that is behind it."""
    return (
        f"node '{node_id}' has seen a later epoch of this cluster than this orchestrator has, as after an older copy "
        "of the orchestrator's database was put back, and its pool manager is of a release that does not say which: "
        "upgrade llama-orch there and start the pool manager again; or stop it, delete control.json in its data "
        "directory, and start it again"
    )
