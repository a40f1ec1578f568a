"""Which workers are in the way on a place, and why they don't leave now; for callers who ask."""

from collections.abc import Iterator

from llorch.counted import counted
from llorch.worker_state import WorkerState
from orchestratord.core.facts.fleet import Site, Worker
from orchestratord.core.placement import eviction, replicas
from orchestratord.core.placement.query import LoadRequest, Query
from orchestratord.core.state import BrainState


def why_full(query: Query, site: Site) -> str:
    """For example: RTX 3060: writer works on 2 tasks, coder stays loaded by a rule."""
    return "; ".join(
        f"{device.name}: {reasons}"
        for device in site.devices
        if (reasons := ", ".join(_reasons(query, site.node.node_id, device.device_id)))
    )


def _reasons(query: Query, node_id: str, device_id: str) -> Iterator[str]:
    state, request = query.state, query.request
    for load_id in state.ledger.loads_on((node_id, device_id)):
        worker = state.fleet.workers.get(load_id)
        if worker is not None and not eviction.may_leave(state, worker, request):
            yield f"{worker.spec.model} {_why_it_stays(state, worker, request)}"


def _why_it_stays(state: BrainState, worker: Worker, request: LoadRequest) -> str:
    if eviction.is_kept(state, worker):
        return "stays loaded by a rule"
    if worker.attempts:
        tasks = counted(len(worker.attempts), "task")
        return f"leaves after {tasks}" if worker.leaving else f"works on {tasks}{_waited_for(state, worker)}"
    if worker.state is WorkerState.STARTING:
        return "is loading"
    if worker.state is WorkerState.STOPPING or worker.leaving is not None:
        return "is just leaving"
    if not eviction.has_been_quiet(state, worker, request.rank, request.model.name):
        return f"has just been used by tasks of class '{state.config.priorities[worker.last_class or 0]}'"
    return "is about to be used"


def _waited_for(state: BrainState, worker: Worker) -> str:
    """For whom a task waits that wants the place."""
    waiting = replicas.heads_for(state, worker)
    if not waiting:
        return ""
    tasks, app = state.queue.waiting(worker.spec.model), waiting[0].request.app
    first = f", of app '{app}' first" if app else ""
    return f" and is waited for by {counted(tasks, 'task')}{first}"
