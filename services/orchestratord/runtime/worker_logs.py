"""The log of a worker, from the machine that has it."""

from collections.abc import AsyncGenerator, Sequence

from llama_orch.v2 import fleet_service_pb2, pool_manager_service_pb2
from llorch.errors import NotFound, Unavailable
from llorch.identifiers import is_id
from orchestratord.core.facts.fleet import Fleet, Node, NodeState
from orchestratord.runtime.effect_runner import EffectRunner


async def read_worker_log(
    fleet: Fleet, effects: EffectRunner, request: fleet_service_pb2.StreamWorkerLogRequest
) -> AsyncGenerator[Sequence[str], None]:
    """Lines as they come. Only its machine knows a worker that has ended, and the log of one that crashed is the one
    that operators need most, so the machines are asked for it one after the other. Raises `NotFound`.
    """
    asked = pool_manager_service_pb2.PoolManagerServiceStreamWorkerLogRequest(
        worker_id=request.worker_id, tail_lines=request.tail_lines, follow=request.follow
    )
    if known := fleet.workers.get(request.worker_id):
        nodes = [fleet.node(known.node_id)]
    else:
        nodes = _that_may_have_it(fleet) if is_id(request.worker_id) else []
    for node in nodes:
        try:
            async with effects.node(node.node_id).read_log(asked) as answers:
                async for answer in answers:
                    yield answer.lines
        except (NotFound, Unavailable):
            if known:
                raise
        else:
            return
    fleet.worker(request.worker_id)


def _that_may_have_it(fleet: Fleet) -> list[Node]:
    """Machines that answer at once, in an order that does not change."""
    return sorted(
        (node for node in fleet.nodes.values() if node.state is NodeState.READY), key=lambda node: node.node_id
    )
