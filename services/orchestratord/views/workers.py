"""Workers: what they do."""

from llorch.worker_state import WorkerState
from orchestratord.core.facts.fleet import Worker


def state_of(worker: Worker) -> WorkerState:
    """The brain's own state of it; one that is to leave takes nothing new."""
    is_leaving = worker.state is WorkerState.READY and worker.leaving is not None
    return WorkerState.DRAINING if is_leaving else worker.state
