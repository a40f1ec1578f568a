"""`llorch.AsyncClient`: the orchestrator's API for programs with an event loop."""

from types import TracebackType
from typing import Self

from llorch.sdk.app_calls import AppCalls
from llorch.sdk.fleet_calls import FleetCalls
from llorch.sdk.log_calls import LogCalls
from llorch.sdk.memory_calls import MemoryCalls
from llorch.sdk.meta_calls import MetaCalls
from llorch.sdk.model_calls import ModelCalls
from llorch.sdk.placement_calls import PlacementCalls
from llorch.sdk.pool_calls import PoolCalls
from llorch.sdk.session_calls import SessionCalls
from llorch.sdk.task_calls import TaskCalls


class AsyncClient(
    TaskCalls,
    SessionCalls,
    ModelCalls,
    PlacementCalls,
    AppCalls,
    MemoryCalls,
    FleetCalls,
    PoolCalls,
    LogCalls,
    MetaCalls,
):
    """Connections to an orchestrator; an async context manager, or `await close()` it. At most 800 streams at once.

    `address` is `host:port` (default: LLORCH_ADDRESS, else 127.0.0.1:8090), `token` the bearer token (default:
    LLORCH_API_TOKEN, else the one that `llorch up` of this user keeps for an address of this machine). `timeout_s`
    bounds each call that is not a stream. `reconnect_for_s` is how long a stream that broke, and a call that may be
    made twice, looks for an orchestrator that has answered before. Calls raise leaves of `llorch.LlorchError`;
    `llorch.Unreachable` where no orchestrator answers. Models, tasks and the state are the contract's messages
    (`llama_orch.v2`).
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
