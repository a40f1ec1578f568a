"""Calls about what there is: nodes, devices, workers and queues."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from llama_orch.v2 import fleet_service_pb2, node_pb2
from llorch.sdk.caller import Caller
from llorch.sdk.fill import filled


class FleetCalls(Caller):
    async def state(self) -> fleet_service_pb2.State:
        """Nodes, devices with their ledger, workers and queues, all at one moment."""
        request = fleet_service_pb2.GetStateRequest()
        answer: fleet_service_pb2.GetStateResponse = await self._ask(self._stubs.fleet.GetState, request)
        return answer.state

    async def watch_state(self) -> AsyncGenerator[fleet_service_pb2.State, None]:
        """The state now, and again whenever it changed, at most ten times a second."""
        request = fleet_service_pb2.WatchStateRequest()
        async with aclosing(self._read(self._stubs.fleet.WatchState, request)) as answers:
            async for answer in answers:
                yield answer.state

    async def nodes(self) -> list[node_pb2.Node]:
        """All nodes with their pools, devices and workers, by id."""
        request = fleet_service_pb2.ListNodesRequest()
        return await self._all_pages(self._stubs.fleet.ListNodes, request, lambda page: page.nodes)

    async def node(self, node_id: str) -> node_pb2.Node:
        """One node."""
        request = filled(fleet_service_pb2.GetNodeRequest, node_id=node_id)
        answer: fleet_service_pb2.GetNodeResponse = await self._ask(self._stubs.fleet.GetNode, request)
        return answer.node

    async def deregister_node(self, node_id: str) -> None:
        """Forgets a node that is gone; one whose link lives is refused."""
        request = filled(fleet_service_pb2.DeregisterNodeRequest, node_id=node_id)
        await self._call(self._stubs.fleet.DeregisterNode, request)
