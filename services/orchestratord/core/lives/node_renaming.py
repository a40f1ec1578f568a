"""A host comes back under another name: what was its former node's is its own now."""

from orchestratord.core.facts.fleet import Node
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
        to = {(former.node_id, it): (node.node_id, it) for it in worker.spec.device_ids}
        state.ledger.move(worker.worker_id, to)
        state.fleet.move_worker(worker.worker_id, node.node_id)
    devices.renamed(state, node, former.node_id)
    pools.renamed(state, node, former.node_id)
    for refusals in state.refusals.values():
        refusals.pop(former.node_id, None)
    known_nodes.forget_devices(state, former, former.devices)
    known_nodes.forget(state, former)
    del state.fleet.nodes[former.node_id]
    return True


def _former(state: BrainState, node: Node) -> Node | None:
    if not node.host_id:
        return None
    others = (other for other in state.fleet.nodes.values() if other is not node)
    return next((other for other in others if other.host_id == node.host_id), None)
