"""FleetService: nodes, devices, workers."""

from typing import Any

from llama_orch.v2 import fleet_service_pb2 as pb2
from llama_orch.v2 import pool_manager_service_pb2
from llama_orch.v2.pool_manager_service_pb2 import StageProgress
from llorch.clock import Clock
from llorch.rpc.client import open_stream
from llorch.rpc.slow_reader import write_with_deadline
from orchestratord.api.not_yet import PartialServicer
from orchestratord.api.pages import page_of
from orchestratord.convert import state as convert_state
from orchestratord.convert.models import check_source
from orchestratord.core import events, pulls
from orchestratord.core.fleet import Node, WorkerState
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.effect_runner import EffectRunner
from orchestratord.runtime.pulls import pull
from orchestratord.store.interface import Incarnation
from orchestratord.version import VERSION


class FleetService(PartialServicer, service=pb2.DESCRIPTOR.services_by_name["FleetService"]):
    def __init__(
        self,
        owner: BrainOwner,
        effects: EffectRunner,
        incarnation: Incarnation,
        clock: Clock,
        write_deadline_s: float,
    ) -> None:
        self._owner = owner
        self._effects = effects
        self._incarnation = incarnation
        self._clock = clock
        self._write_deadline_s = write_deadline_s

    async def GetState(self, request: pb2.GetStateRequest, context: Any) -> pb2.GetStateResponse:
        state = convert_state.to_proto(
            self._owner.state,
            cluster_id=self._incarnation.cluster_id,
            control_epoch=self._incarnation.control_epoch,
            version=VERSION,
            now=self._owner.now(),
            wall=self._clock.wall(),
        )
        return pb2.GetStateResponse(state=state)

    async def ListNodes(self, request: pb2.ListNodesRequest, context: Any) -> pb2.ListNodesResponse:
        nodes = self._owner.state.fleet.nodes.values()
        page, following = page_of(nodes, lambda node: node.node_id, request.page_size, request.page_token)
        return pb2.ListNodesResponse(nodes=[self._shown(node) for node in page], next_page_token=following)

    async def GetNode(self, request: pb2.GetNodeRequest, context: Any) -> pb2.GetNodeResponse:
        return pb2.GetNodeResponse(node=self._shown(self._owner.state.fleet.node(request.node_id)))

    async def DeregisterNode(self, request: pb2.DeregisterNodeRequest, context: Any) -> pb2.DeregisterNodeResponse:
        self._owner.ask(events.NodeForgotten(request.node_id))
        return pb2.DeregisterNodeResponse()

    async def StopWorker(self, request: pb2.StopWorkerRequest, context: Any) -> pb2.StopWorkerResponse:
        self._owner.ask(events.WorkerStopAsked(request.worker_id, request.even_if_busy))
        return pb2.StopWorkerResponse()

    async def UnloadModel(self, request: pb2.UnloadModelRequest, context: Any) -> pb2.UnloadModelResponse:
        model = self._owner.state.catalog.get(request.model)
        workers = [
            worker.worker_id
            for worker in self._owner.state.fleet.workers_of_model(model.name)
            if worker.state is not WorkerState.STOPPING
        ]
        for worker_id in workers:
            self._owner.ask(events.WorkerStopAsked(worker_id, request.even_if_busy))
        return pb2.UnloadModelResponse(worker_ids=workers)

    async def StreamWorkerLog(self, request: pb2.StreamWorkerLogRequest, context: Any) -> None:
        worker = self._owner.state.fleet.worker(request.worker_id)
        asked = pool_manager_service_pb2.PoolManagerServiceStreamWorkerLogRequest(
            worker_id=worker.worker_id, tail_lines=request.tail_lines, follow=request.follow
        )
        async with open_stream(self._effects.node(worker.node_id).stub.StreamWorkerLog, asked) as answers:
            async for answer in answers:
                lines = pb2.StreamWorkerLogResponse(lines=answer.lines)
                await write_with_deadline(context, lines, self._write_deadline_s)

    async def PullModel(self, request: pb2.PullModelRequest, context: Any) -> None:
        source = pulls.source_of(self._owner.state, request.source)
        check_source(source)
        nodes = pulls.nodes_for(self._owner.state, source, request.node_ids)

        async def tell(node_id: str, progress: StageProgress) -> None:
            answer = pb2.PullModelResponse(node_id=node_id, progress=progress)
            await write_with_deadline(context, answer, self._write_deadline_s)

        await pull({node.node_id: self._effects.node(node.node_id) for node in nodes}, source, tell)

    def _shown(self, node: Node) -> Any:
        return convert_state.node_with_contents(self._owner.state, node, self._owner.now(), self._clock.wall())
