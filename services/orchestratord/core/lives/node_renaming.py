"""A host comes back under another name: what was its former node's is its own now."""

from llorch.device_kind import DeviceKind
from orchestratord.core.effects import WarnOfNode
from orchestratord.core.facts.fleet import Node, Worker
from orchestratord.core.lives import devices, known_nodes, model_loading, pools
from orchestratord.core.state import BrainState


def take_over(state: BrainState, node: Node) -> bool:
    """Whether the host was known under another name. Its workers go on under the new one, its card counts once, and
    what was released or drained stays so. Rules name nodes as people do, and stay as they are.
    """
    former = _former(state, node)
    if former is None:
        return False
    model_loading.give_up_loads(state, former.node_id)
    for worker in state.fleet.workers_on(former.node_id):
        _move(state, worker, node)
    devices.renamed(state, node, former.node_id)
    pools.renamed(state, node, former.node_id)
    known_nodes.remove(state, former)
    node.former = former.node_id
    state.emit(WarnOfNode(node.node_id, _told(state, node)))
    return True


def _told(state: BrainState, node: Node) -> str:
    """With the rules that name it as it was called before."""
    rules = [
        rule for rule in state.assignments.all() if any(place.node_id == node.former for place in rule.known_places)
    ]
    named = ", ".join(rule.assignment_id for rule in rules)
    remedy = f"; rules still name '{node.former}', set them anew for '{node.node_id}': {named}" if named else ""
    return f"the host of node '{node.former}' is called '{node.node_id}' now{remedy}"


def came_with_its_card(state: BrainState, node: Node, worker: Worker) -> bool:
    """Whether a worker of another node is this one's now, since the cards that it uses are. A pool manager of an
    earlier release does not tell its host's id. The other node is away, or the cards would have stayed its own.
    """
    devices = [node.devices.get(device_id) for device_id in worker.spec.device_ids]
    if state.fleet.node_is_ready(worker) or not all(one is not None and one.kind is DeviceKind.CUDA for one in devices):
        return False
    _move(state, worker, node)
    return True


def _move(state: BrainState, worker: Worker, node: Node) -> None:
    to = {(worker.node_id, it): (node.node_id, it) for it in worker.spec.device_ids}
    state.ledger.move(worker.worker_id, to)
    state.fleet.move_worker(worker.worker_id, node.node_id)


def _former(state: BrainState, node: Node) -> Node | None:
    if not node.host_id:
        return None
    others = (other for other in state.fleet.nodes.values() if other is not node)
    return next((other for other in others if other.host_id == node.host_id), None)
