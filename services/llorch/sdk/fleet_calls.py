"""Calls about what there is: nodes, devices, workers and queues."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from llama_orch.v2 import fleet_service_pb2
from llorch.sdk.caller import Caller


class FleetCalls(Caller):
    async def state(self) -> fleet_service_pb2.State:
        """Nodes, devices with their ledger, workers and queues, all at one moment."""
        request = fleet_service_pb2.GetStateRequest()
        answer: fleet_service_pb2.GetStateResponse = await self._call(self._stubs.fleet.GetState, request)
        return answer.state

    async def watch_state(self) -> AsyncGenerator[fleet_service_pb2.State, None]:
        """The state now, and again whenever it changed, at most ten times a second."""
        request = fleet_service_pb2.WatchStateRequest()
        async with aclosing(self._read(self._stubs.fleet.WatchState, request)) as answers:
            async for answer in answers:
                yield answer.state
