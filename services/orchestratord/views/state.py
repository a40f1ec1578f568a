"""The state at a glance: nodes, devices with their ledger, workers, queues, loads."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestratord.core.facts.fleet import Worker
from orchestratord.core.state import BrainState
from orchestratord.views import loads, nodes
from orchestratord.views.loads import LoadFailureView, LoadView
from orchestratord.views.nodes import LedgerView, NodeView


@dataclass(frozen=True, slots=True)
class QueueView:
    priority: str
    depth: int
    capacity: int


@dataclass(frozen=True, slots=True)
class StateView:
    nodes: Sequence[NodeView]
    devices: Sequence[LedgerView]
    workers: Sequence[Worker]
    queues: Sequence[QueueView]
    tasks_running: int
    loads: Sequence[LoadView]
    load_failures: Sequence[LoadFailureView]


def view(state: BrainState, now: float) -> StateView:
    """All of it in a stable order. `now` is on the brain's clock."""
    fleet, queue = state.fleet, state.queue
    by_id = sorted(fleet.nodes.values(), key=lambda node: node.node_id)
    return StateView(
        nodes=[nodes.view(state, node, now) for node in by_id],
        devices=[account for node in by_id for account in nodes.ledger(state, node, now)],
        workers=sorted(fleet.workers.values(), key=lambda worker: worker.worker_id),
        queues=[QueueView(priority, queue.depth(priority), queue.capacity) for priority in queue.priorities],
        tasks_running=state.running,
        loads=loads.views(state),
        load_failures=loads.failures(state, now),
    )
