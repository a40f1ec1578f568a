"""Calls about pools: their health, and emptying them."""

from llama_orch.v2 import fleet_service_pb2
from llorch.sdk.caller import Caller
from llorch.sdk.fill import filled

DEFAULT_POLICY = fleet_service_pb2.DRAIN_POLICY_UNSPECIFIED


class PoolCalls(Caller):
    """`deadline_ms` is the time that running work gets to finish; by default 30 s, as the orchestrator has it. `policy`
    says what becomes of work that has not finished then; by default it goes on elsewhere.
    """

    async def pool_health(self, pool_id: str) -> fleet_service_pb2.GetPoolHealthResponse:
        """The health of a pool; while it is drained, what the drain waits for."""
        request = filled(fleet_service_pb2.GetPoolHealthRequest, pool_id=pool_id)
        answer: fleet_service_pb2.GetPoolHealthResponse = await self._ask(self._stubs.fleet.GetPoolHealth, request)
        return answer

    async def drain_pool(
        self,
        pool_id: str,
        *,
        deadline_ms: int | None = None,
        policy: "fleet_service_pb2.DrainPolicy.ValueType" = DEFAULT_POLICY,
    ) -> None:
        """Begins to empty a pool; nothing new comes to it until it is reloaded."""
        request = filled(fleet_service_pb2.DrainPoolRequest, pool_id=pool_id, deadline_ms=deadline_ms, policy=policy)
        await self._call(self._stubs.fleet.DrainPool, request)

    async def reload_pool(
        self,
        pool_id: str,
        *,
        deadline_ms: int | None = None,
        policy: "fleet_service_pb2.DrainPolicy.ValueType" = DEFAULT_POLICY,
    ) -> None:
        """Begins to empty a pool, after which the orchestrator starts again what ran there."""
        request = filled(fleet_service_pb2.ReloadPoolRequest, pool_id=pool_id, deadline_ms=deadline_ms, policy=policy)
        await self._call(self._stubs.fleet.ReloadPool, request)

    async def purge_pool(
        self,
        pool_id: str,
        *,
        deadline_ms: int | None = None,
        policy: "fleet_service_pb2.DrainPolicy.ValueType" = DEFAULT_POLICY,
    ) -> None:
        """Begins to empty a pool, after which its node deletes the model files that no other pool there uses."""
        request = filled(fleet_service_pb2.PurgePoolRequest, pool_id=pool_id, deadline_ms=deadline_ms, policy=policy)
        await self._call(self._stubs.fleet.PurgePool, request)
