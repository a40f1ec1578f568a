"""`llorch.AsyncClient`: the orchestrator's API for programs with an event loop."""

from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from llama_orch.v2 import (
    cancel_pb2,
    catalog_service_pb2,
    fleet_service_pb2,
    model_pb2,
    task_pb2,
    task_service_pb2,
)
from llorch.errors import DeadlineExceeded, Unavailable
from llorch.rpc.client import open_stream
from llorch.sdk.app_calls import AppCalls
from llorch.sdk.log_calls import LogCalls
from llorch.sdk.memory_calls import MemoryCalls
from llorch.sdk.placement_calls import PlacementCalls
from llorch.sdk.pool_calls import PoolCalls
from llorch.sdk.refusal import refusing
from llorch.sdk.task_spec import GenerateOptions, Prompt, generate_spec
from llorch.sdk.task_stream import Messages, TaskStream

# Streams carry a heartbeat every 10 s; this much silence means that nobody is there any more.
_SILENCE_S = 30.0
_VERIFY_S = 3600.0  # as long as the largest models take from the slowest disks


class AsyncClient(PlacementCalls, AppCalls, MemoryCalls, PoolCalls, LogCalls):
    """One connection to an orchestrator; an async context manager, or `await close()` it.

    `address` is `host:port` (default: LLORCH_ADDRESS, else 127.0.0.1:8090), `token` the bearer token (default:
    LLORCH_API_TOKEN). `timeout_s` bounds each call that is not a stream. `reconnect_for_s` is how long a stream that
    broke looks for its orchestrator. Calls raise leaves of `llorch.LlorchError`; `llorch.Unreachable` where nobody
    answers. Models, tasks and the state are the contract's messages (`llama_orch.v2`).
    """

    def __init__(
        self,
        address: str | None = None,
        token: str | None = None,
        *,
        timeout_s: float = 10.0,
        reconnect_for_s: float = 30.0,
    ) -> None:
        super().__init__(address, token, timeout_s=timeout_s)
        self._reconnect_for_s = reconnect_for_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def generate(self, model: str, prompt: Prompt, **options: Unpack[GenerateOptions]) -> TaskStream:
        """Submits and streams. The task lives as long as somebody reads it, give or take two seconds."""
        request = task_service_pb2.GenerateRequest(task=generate_spec(model, prompt, options))
        return self._task_stream(self._stubs.tasks.Generate, request)

    async def submit(self, model: str, prompt: Prompt, **options: Unpack[GenerateOptions]) -> str:
        """Submits a task that goes on without a reader, and returns its id for `stream`."""
        request = task_service_pb2.SubmitTaskRequest(task=generate_spec(model, prompt, options))
        answer: task_service_pb2.SubmitTaskResponse = await self._call(self._stubs.tasks.SubmitTask, request)
        return answer.task_id

    def stream(self, task_id: str, *, after: str = "") -> TaskStream:
        """The events of a task from its beginning, or after the cursor of an event."""
        request = task_service_pb2.StreamTaskRequest(task_id=task_id, after=after)
        return self._task_stream(self._stubs.tasks.StreamTask, request, task_id=task_id, after=after)

    async def cancel(self, task_id: str) -> bool:
        """Whether this call cancelled it; False if it had ended before, or nobody knows it."""
        request = task_service_pb2.CancelTaskRequest(task_id=task_id)
        answer: task_service_pb2.CancelTaskResponse = await self._call(self._stubs.tasks.CancelTask, request)
        return answer.outcome == cancel_pb2.CANCEL_OUTCOME_CANCELLED

    async def tasks(
        self, state: "task_pb2.TaskState.ValueType" = task_pb2.TASK_STATE_UNSPECIFIED
    ) -> list[task_pb2.Task]:
        """The tasks that are kept, newest first; only those in a state, if one is given."""
        request = task_service_pb2.ListTasksRequest(state=state)
        return await self._all_pages(self._stubs.tasks.ListTasks, request, lambda page: page.tasks)

    async def models(self) -> list[model_pb2.Model]:
        """All models, by name."""
        request = catalog_service_pb2.ListModelsRequest()
        return await self._all_pages(self._stubs.catalog.ListModels, request, lambda page: page.models)

    async def model(self, name: str) -> model_pb2.Model:
        """One model, by name or alias."""
        request = catalog_service_pb2.GetModelRequest(model=name)
        answer: catalog_service_pb2.GetModelResponse = await self._call(self._stubs.catalog.GetModel, request)
        return answer.model

    async def register_model(self, name: str, source: str, **settings: Any) -> model_pb2.Model:
        """Adds a model; `source` is a reference such as `file:<absolute path>` or `hf:<org>/<repo>:<quantization>`.

        `settings` are other fields of the contract's `ModelSpec`, e.g. `context=8192, slots=2`.
        """
        spec = model_pb2.ModelSpec()
        for field, value in {"name": name, "source": source, **settings}.items():
            with refusing(field, value):
                spec.MergeFrom(model_pb2.ModelSpec(**{field: value}))
        request = catalog_service_pb2.RegisterModelRequest(model=spec)
        answer: catalog_service_pb2.RegisterModelResponse = await self._call(self._stubs.catalog.RegisterModel, request)
        return answer.model

    async def pull_model(
        self, source: str, node_ids: Sequence[str] = ()
    ) -> AsyncGenerator[fleet_service_pb2.PullModelResponse, None]:
        """Brings a model's file onto nodes, and says how it goes; the last message of each node is `complete`.

        `source` is a model's name or a reference such as `hf:org/repo:Q4_K_M`. Without `node_ids` the orchestrator
        chooses. Leaving the iteration leaves the download alone for a while; asking again goes on with it.
        """
        request = fleet_service_pb2.PullModelRequest(source=source, node_ids=node_ids)
        try:
            async with open_stream(self._stubs.fleet.PullModel, request, idle_timeout_s=_SILENCE_S) as answers:
                async for answer in answers:
                    yield answer
        except (Unavailable, DeadlineExceeded) as error:
            raise self._explained(error) from error

    async def delete_model(self, name: str) -> None:
        """Takes a model that was added out of the catalog; its file stays."""
        await self._call(self._stubs.catalog.DeleteModel, catalog_service_pb2.DeleteModelRequest(model=name))

    async def retire_model(self, name: str) -> model_pb2.Model:
        """Gives a model no new tasks; what runs may finish."""
        return await self._set_model_state(name, model_pb2.MODEL_STATE_RETIRED)

    async def activate_model(self, name: str) -> model_pb2.Model:
        """Gives a retired model tasks again."""
        return await self._set_model_state(name, model_pb2.MODEL_STATE_ACTIVE)

    async def verify_model(self, name: str) -> list[catalog_service_pb2.NodeVerification]:
        """Reads a model's files again on every node that holds them. Large files take minutes."""
        request = catalog_service_pb2.VerifyModelRequest(model=name)
        answer: catalog_service_pb2.VerifyModelResponse = await self._call(
            self._stubs.catalog.VerifyModel, request, timeout_s=_VERIFY_S
        )
        return list(answer.nodes)

    async def state(self) -> fleet_service_pb2.State:
        """Nodes, devices with their ledger, workers and queues, all at one moment."""
        request = fleet_service_pb2.GetStateRequest()
        answer: fleet_service_pb2.GetStateResponse = await self._call(self._stubs.fleet.GetState, request)
        return answer.state

    async def watch_state(self) -> AsyncGenerator[fleet_service_pb2.State, None]:
        """The state now, and again whenever it changed, at most ten times a second."""
        request = fleet_service_pb2.WatchStateRequest()
        try:
            async with open_stream(self._stubs.fleet.WatchState, request) as answers:
                async for answer in answers:
                    yield answer.state
        except (Unavailable, DeadlineExceeded) as error:
            raise self._explained(error) from error

    async def _set_model_state(self, name: str, state: "model_pb2.ModelState.ValueType") -> model_pb2.Model:
        request = catalog_service_pb2.SetModelStateRequest(model=name, state=state)
        answer: catalog_service_pb2.SetModelStateResponse = await self._call(self._stubs.catalog.SetModelState, request)
        return answer.model

    def _task_stream(self, method: Any, request: Any, *, task_id: str = "", after: str = "") -> TaskStream:
        return TaskStream(
            self._messages(method, request),
            self._open_again,
            self._explained,
            reconnect_for_s=self._reconnect_for_s,
            task_id=task_id,
            after=after,
        )

    def _open_again(self, task_id: str, cursor: str) -> Messages:
        request = task_service_pb2.StreamTaskRequest(task_id=task_id, after=cursor)
        return self._messages(self._stubs.tasks.StreamTask, request)

    def _messages(self, method: Any, request: Any) -> Messages:
        return open_stream(method, request, idle_timeout_s=_SILENCE_S)
