"""FleetService: nodes, devices, workers."""

from contextlib import aclosing
from typing import Any

from llama_orch.v2 import fleet_service_pb2 as pb2
from llama_orch.v2.pool_manager_service_pb2 import StageProgress
from llorch.clock import Clock
from llorch.errors import invalid_field
from llorch.identifiers import new_id
from llorch.rpc.call_context import current_call
from llorch.rpc.slow_reader import write_with_deadline
from orchestratord.api.not_yet import PartialServicer
from orchestratord.api.pages import page_of
from orchestratord.convert import pools
from orchestratord.convert import state as convert_state
from orchestratord.convert.models import check_source
from orchestratord.core import events
from orchestratord.core.facts import targets
from orchestratord.core.facts.drains import AfterDrain
from orchestratord.core.facts.fleet import Node
from orchestratord.core.facts.targets import Place
from orchestratord.core.placement import pulls
from orchestratord.runtime.authority import Authority
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.effect_runner import EffectRunner
from orchestratord.runtime.kept_changes import KeptChanges
from orchestratord.runtime.pulls import pull
from orchestratord.runtime.state_changes import Look, StateChanges
from orchestratord.runtime.worker_logs import read_worker_log
from orchestratord.version import VERSION
from orchestratord.views import nodes as view_nodes
from orchestratord.views import pools as view_pools
from orchestratord.views import state as view_state


class FleetService(PartialServicer, service=pb2.DESCRIPTOR.services_by_name["FleetService"]):
    def __init__(
        self,
        owner: BrainOwner,
        effects: EffectRunner,
        kept: KeptChanges,
        authority: Authority,
        clock: Clock,
        write_deadline_s: float,
    ) -> None:
        self._owner = owner
        self._effects = effects
        self._kept = kept
        self._authority = authority
        self._clock = clock
        self._write_deadline_s = write_deadline_s
        self._changes = StateChanges(owner, self._look)

    async def GetState(self, request: pb2.GetStateRequest, context: Any) -> pb2.GetStateResponse:
        return pb2.GetStateResponse(state=self._state())

    async def ListNodes(self, request: pb2.ListNodesRequest, context: Any) -> pb2.ListNodesResponse:
        nodes = self._owner.state.fleet.nodes.values()
        page, following = page_of(nodes, lambda node: node.node_id, request.page_size, request.page_token)
        return pb2.ListNodesResponse(nodes=[self._shown(node) for node in page], next_page_token=following)

    async def GetNode(self, request: pb2.GetNodeRequest, context: Any) -> pb2.GetNodeResponse:
        return pb2.GetNodeResponse(node=self._shown(self._owner.state.fleet.node(request.node_id)))

    async def DeregisterNode(self, request: pb2.DeregisterNodeRequest, context: Any) -> pb2.DeregisterNodeResponse:
        await self._kept.ask(events.NodeForgotten(request.node_id))
        return pb2.DeregisterNodeResponse()

    async def StopWorker(self, request: pb2.StopWorkerRequest, context: Any) -> pb2.StopWorkerResponse:
        self._owner.ask(events.WorkerStopAsked(request.worker_id, request.even_if_busy))
        return pb2.StopWorkerResponse()

    async def LoadModel(self, request: pb2.LoadModelRequest, context: Any) -> pb2.LoadModelResponse:
        places = (targets.resolve(self._owner.state.fleet, request.target),) if request.target else ()
        return pb2.LoadModelResponse(worker_id=self._load(events.ModelLoadAsked(request.model, _new_id(), places)))

    async def StartWorker(self, request: pb2.StartWorkerRequest, context: Any) -> pb2.StartWorkerResponse:
        node = self._owner.state.fleet.node(request.node_id)
        place = Place(node.node_id)
        if request.device_ids:
            together = targets.TOGETHER.join(request.device_ids)
            place = targets.resolve(self._owner.state.fleet, f"{node.node_id}/{together}")
        asked = events.ModelLoadAsked(request.model, _new_id(), (place,), anew=True)
        return pb2.StartWorkerResponse(worker_id=self._load(asked))

    async def UnloadModel(self, request: pb2.UnloadModelRequest, context: Any) -> pb2.UnloadModelResponse:
        name = self._owner.state.catalog.get(request.model).name
        stopped = self._owner.ask(events.ModelUnloadAsked(name, request.even_if_busy))
        return pb2.UnloadModelResponse(worker_ids=stopped)

    async def ReleaseDevice(self, request: pb2.ReleaseDeviceRequest, context: Any) -> pb2.ReleaseDeviceResponse:
        place = self._devices(request.device)
        duration_s = request.duration_ms / 1000 if request.HasField("duration_ms") else None
        if duration_s == 0:
            raise invalid_field("duration_ms", "is 0; leave it out to release the device until it is resumed")
        until_ms = None if duration_s is None else round((self._clock.wall().timestamp() + duration_s) * 1000)
        released = events.DeviceReleaseAsked(place.node_id, place.device_ids, duration_s, until_ms)
        leaving = await self._kept.ask(released)
        return pb2.ReleaseDeviceResponse(worker_ids=leaving)

    async def ResumeDevice(self, request: pb2.ResumeDeviceRequest, context: Any) -> pb2.ResumeDeviceResponse:
        place = self._devices(request.device)
        await self._kept.ask(events.DeviceResumeAsked(place.node_id, place.device_ids))
        return pb2.ResumeDeviceResponse()

    async def GetPoolHealth(self, request: pb2.GetPoolHealthRequest, context: Any) -> pb2.GetPoolHealthResponse:
        return pools.health_to_proto(view_pools.health(self._owner.state, request.pool_id))

    async def DrainPool(self, request: pb2.DrainPoolRequest, context: Any) -> pb2.DrainPoolResponse:
        await self._kept.ask(pools.to_drain(request, AfterDrain.STAY))
        return pb2.DrainPoolResponse()

    async def ReloadPool(self, request: pb2.ReloadPoolRequest, context: Any) -> pb2.ReloadPoolResponse:
        await self._kept.ask(pools.to_drain(request, AfterDrain.RELOAD))
        return pb2.ReloadPoolResponse()

    async def PurgePool(self, request: pb2.PurgePoolRequest, context: Any) -> pb2.PurgePoolResponse:
        await self._kept.ask(pools.to_drain(request, AfterDrain.PURGE))
        return pb2.PurgePoolResponse()

    async def WatchState(self, request: pb2.WatchStateRequest, context: Any) -> None:
        """The client is sent the state again only if more than times in it has changed."""
        caller = current_call()
        # Who says so without being a gateway watches a hundred times on a connection, as on two of them.
        connection = None if caller.comes_by_gateway else caller.peer
        async with aclosing(self._changes.follow(connection)) as states:
            async for response in states:
                await write_with_deadline(context, response, self._write_deadline_s)

    async def StreamWorkerLog(self, request: pb2.StreamWorkerLogRequest, context: Any) -> None:
        async with aclosing(read_worker_log(self._owner.state.fleet, self._effects, request)) as parts:
            async for lines in parts:
                answer = pb2.StreamWorkerLogResponse(lines=lines)
                await write_with_deadline(context, answer, self._write_deadline_s)

    async def PullModel(self, request: pb2.PullModelRequest, context: Any) -> None:
        source = pulls.source_of(self._owner.state, request.source)
        check_source(source)
        nodes = pulls.nodes_for(self._owner.state, source, request.node_ids)

        async def tell(node_id: str, progress: StageProgress) -> None:
            answer = pb2.PullModelResponse(node_id=node_id, progress=progress)
            await write_with_deadline(context, answer, self._write_deadline_s)

        await pull({node.node_id: self._effects.node(node.node_id) for node in nodes}, source, tell)

    def _shown(self, node: Node) -> Any:
        view = view_nodes.with_contents(self._owner.state, node, self._owner.now())
        return convert_state.node_with_contents_to_proto(view, self._clock.wall())

    def _state(self) -> pb2.State:
        return convert_state.to_proto(
            view_state.view(self._owner.state, self._owner.now()),
            cluster_id=self._authority.cluster_id,
            control_epoch=self._authority.control_epoch,
            version=VERSION,
            wall=self._clock.wall(),
        )

    def _look(self) -> Look:
        response = pb2.WatchStateResponse(state=self._state())
        shown = response.SerializeToString()
        return Look(_timeless(response.state), shown)

    def _load(self, asked: events.ModelLoadAsked) -> str:
        if not asked.model:
            raise invalid_field("model", "must not be empty; `llorch models` lists the models")
        return self._owner.ask(asked)

    def _devices(self, text: str) -> Place:
        """The devices of the place that the caller named; it has to name one."""
        if not text:
            raise invalid_field("device", "must not be empty; for example garage/3090")
        place = targets.resolve(self._owner.state.fleet, text)
        node = self._owner.state.fleet.node(place.node_id)
        return Place(node.node_id, targets.devices_of(node, place))


def _new_id() -> str:
    return new_id("worker")


def _timeless(state: pb2.State) -> pb2.State:
    """The same state, without its times; it is changed for that."""
    state.ClearField("time")
    for node in state.nodes:
        node.ClearField("last_report_age_ms")
        node.ClearField("register_time")
    for failure in state.load_failures:
        failure.ClearField("time")
    for device in state.devices:
        device.ClearField("release_end_time")
    return state
