"""`PoolManagerService`."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import grpc

from llama_orch.v2 import node_link_pb2
from llama_orch.v2 import pool_manager_service_pb2 as pb
from llorch.errors import PermissionDenied, Reason, invalid_field
from llorch.identifiers import check_id
from llorch.rpc import worker_spec
from llorch.rpc.call_context import current_call
from llorch.rpc.enum_tables import WORKER_STATES
from llorch.rpc.reasons import reason_of_proto
from llorch.rpc.sessions_to_save import to_sessions_to_save
from llorch.rpc.slow_reader import write_with_deadline
from llorch.saved_sessions import MOST_AT_ONCE, check_saved_session
from pool_managerd.api.authenticator import is_this_worker, is_worker
from pool_managerd.bell import Bell
from pool_managerd.control import ControlGuard
from pool_managerd.convert.commands import to_command_header
from pool_managerd.convert.models import to_complete_progress, to_progress, to_verification
from pool_managerd.convert.snapshots import to_snapshot
from pool_managerd.convert.tokens import to_engine, to_tokens_response
from pool_managerd.models.digest import read_digest
from pool_managerd.models.shelf import ModelShelf
from pool_managerd.node_state import NodeState, changes, is_empty
from pool_managerd.saved_sessions import SavedSessions
from pool_managerd.vocabularies.vocabularies import Vocabularies
from pool_managerd.workers.log_file import read_log
from pool_managerd.workers.supervisor import Supervisor

_LOOK_EVERY_S = 1.0
_READ_WITHIN_S = 10.0  # a reader that takes longer is dropped
_DEFAULT_TAIL_LINES = 100
_MOST_TAIL_LINES = 10_000
_LINES_PER_MESSAGE = 500


Context = grpc.aio.ServicerContext[Any, Any]


class PoolManagerServicer:
    """Streams are written to the context, so the generated base class, whose streams are generators, does not fit."""

    def __init__(
        self,
        *,
        node_id: str,
        supervisor: Supervisor,
        shelf: ModelShelf,
        vocabularies: Vocabularies,
        saved: SavedSessions,
        guard: ControlGuard,
        state: Callable[[], NodeState],
        bell: Bell,
        draining: asyncio.Event,
    ) -> None:
        self._node_id = node_id
        self._supervisor = supervisor
        self._shelf = shelf
        self._vocabularies = vocabularies
        self._saved = saved
        self._guard = guard
        self._state = state
        self._bell = bell
        self._draining = draining

    async def GetState(
        self, request: pb.PoolManagerServiceGetStateRequest, context: Context
    ) -> pb.PoolManagerServiceGetStateResponse:
        _refuse_workers()
        applied = self._guard.applied_command_seq
        return pb.PoolManagerServiceGetStateResponse(
            node_id=self._node_id, snapshot=self._snapshot(self._state()), applied_command_seq=applied
        )

    async def WatchState(self, request: pb.PoolManagerServiceWatchStateRequest, context: Context) -> None:
        _refuse_workers()
        told = self._state()
        seen = self._bell.rings
        await _tell(context, pb.PoolManagerServiceWatchStateResponse(snapshot=self._snapshot(told)))
        while not self._draining.is_set():
            await self._bell.wait_rung(seen, _LOOK_EVERY_S)
            seen = self._bell.rings
            now = self._state()
            news = changes(told, now)
            told = now
            if not is_empty(news):
                await _tell(context, pb.PoolManagerServiceWatchStateResponse(snapshot=self._snapshot(news)))

    async def StartWorker(
        self, request: pb.PoolManagerServiceStartWorkerRequest, context: Context
    ) -> pb.PoolManagerServiceStartWorkerResponse:
        _refuse_workers()
        with self._guard.applying(to_command_header(request.control)):
            status = await self._supervisor.start(worker_spec.from_command(request.spec))
        return pb.PoolManagerServiceStartWorkerResponse(state=WORKER_STATES.to_proto(status.state))

    async def StopWorker(
        self, request: pb.PoolManagerServiceStopWorkerRequest, context: Context
    ) -> pb.PoolManagerServiceStopWorkerResponse:
        _refuse_workers()
        with self._guard.applying(to_command_header(request.control)):
            worker_id = check_id(request.worker_id, "worker_id")
            state = await self._supervisor.stop(worker_id, to_sessions_to_save(request.save))
        return pb.PoolManagerServiceStopWorkerResponse(state=WORKER_STATES.to_proto(state))

    async def StageModel(self, request: pb.StageModelRequest, context: Context) -> None:
        _refuse_workers()
        with self._guard.applying(to_command_header(request.control)):
            staging = self._shelf.stage(request.source)
        async with aclosing(staging.follow()) as progresses:
            async for progress in progresses:
                await _tell(context, pb.StageModelResponse(progress=to_progress(progress)))
        await _tell(context, pb.StageModelResponse(progress=to_complete_progress(await staging.wait())))

    async def DeleteStagedModel(
        self, request: pb.DeleteStagedModelRequest, context: Context
    ) -> pb.DeleteStagedModelResponse:
        _refuse_workers()
        with self._guard.applying(to_command_header(request.control)):
            await self._shelf.forget(request.source, in_use=self._supervisor.uses(request.source))
        return pb.DeleteStagedModelResponse()

    async def ForgetSavedSessions(
        self, request: pb.ForgetSavedSessionsRequest, context: Context
    ) -> pb.ForgetSavedSessionsResponse:
        _refuse_workers()
        if len(request.saved_sessions) > MOST_AT_ONCE:
            raise invalid_field("saved_sessions", f"names at most {MOST_AT_ONCE} sessions")
        names = [check_saved_session(name, "saved_sessions") for name in request.saved_sessions]
        with self._guard.applying(to_command_header(request.control)):
            await self._saved.forget(names)
        return pb.ForgetSavedSessionsResponse()

    async def VerifyStagedModel(self, request: pb.VerifyStagedModelRequest, context: Context) -> None:
        _refuse_workers()
        model = await self._shelf.find(request.source)
        async with aclosing(read_digest(model)) as readings:
            async for reading in readings:
                await _tell(context, to_verification(reading, model))

    async def ReadStagedTokens(
        self, request: pb.ReadStagedTokensRequest, context: Context
    ) -> pb.ReadStagedTokensResponse:
        _refuse_workers()
        path = await self._shelf.path_of(request.source)
        answer = await self._vocabularies.ask(to_engine(request.engine), path, request.question.SerializeToString())
        return to_tokens_response(answer)

    async def StreamWorkerLog(self, request: pb.PoolManagerServiceStreamWorkerLogRequest, context: Context) -> None:
        _refuse_workers()
        path, ended = self._supervisor.log_of(check_id(request.worker_id, "worker_id"))
        count = min(request.tail_lines or _DEFAULT_TAIL_LINES, _MOST_TAIL_LINES)

        def is_over() -> bool:
            return not request.follow or ended.is_set() or self._draining.is_set()

        async for lines in read_log(path, count, is_over):
            for first in range(0, len(lines), _LINES_PER_MESSAGE):
                part = lines[first : first + _LINES_PER_MESSAGE]
                await _tell(context, pb.PoolManagerServiceStreamWorkerLogResponse(lines=part))

    async def ReportWorkerReady(
        self, request: pb.ReportWorkerReadyRequest, context: Context
    ) -> pb.ReportWorkerReadyResponse:
        if not is_this_worker(current_call().identity, request.worker_id):
            raise PermissionDenied(Reason.NOT_PERMITTED, "only a worker itself says that it is ready")
        if request.failure_reason:
            self._supervisor.report_failed(
                request.worker_id, reason_of_proto(request.failure_reason), request.failure_message
            )
        elif request.loading:
            progress = request.load_progress if request.HasField("load_progress") else None
            await self._supervisor.report_loading(request.worker_id, request.address, progress)
        else:
            await self._supervisor.report_ready(
                request.worker_id,
                request.address,
                request.engine.SerializeToString(),
                tuple(request.engine.memory_mib),
            )
        return pb.ReportWorkerReadyResponse()

    def _snapshot(self, state: NodeState) -> node_link_pb2.NodeSnapshot:
        return to_snapshot(state, self._node_id, with_endpoints=False)


async def _tell(context: Context, message: Any) -> None:
    await write_with_deadline(context, message, _READ_WITHIN_S)


def _refuse_workers() -> None:
    if is_worker(current_call().identity):
        raise PermissionDenied(Reason.NOT_PERMITTED, "a worker's token is good for ReportWorkerReady only")
