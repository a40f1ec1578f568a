"""Commands to the pool manager of one node."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from llama_orch.v2 import control_pb2, pool_manager_service_pb2_grpc, saved_session_pb2, tokens_pb2
from llama_orch.v2 import pool_manager_service_pb2 as pool_pb2
from llorch.background import TaskSupervisor
from llorch.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    LlorchError,
    Reason,
    Unauthenticated,
    Unavailable,
)
from llorch.logs import get_logger
from llorch.rpc import model_facts, worker_spec
from llorch.rpc.client import call, open_channel, open_stream
from llorch.rpc.few_at_once import FewAtOnce
from llorch.rpc.incoming import Incoming
from llorch.rpc.sessions_to_save import whole_ms
from llorch.rpc.status import is_from_server
from llorch.saved_sessions import MOST_AT_ONCE
from orchestratord.core import events
from orchestratord.core.effects import (
    DeleteStagedModel,
    ForgetSavedSession,
    StageModel,
    StartWorker,
    StopWorker,
)
from orchestratord.core.events import Event
from orchestratord.runtime import stale_epoch
from orchestratord.runtime.control import CommandSequence
from orchestratord.runtime.session_names import saved_session_name

Answer = TypeVar("Answer")
Tell = Callable[[pool_pb2.StageProgress], Awaitable[None]]

_CALL_S = 10.0
_STAGING_SILENT_S = 20.0
"""A pool manager says twice a second how it goes, and clients of a pull take silence of 30 s for ours."""

_FIRST_NEWS_AFTER_S = 1.0
_NEWS_EVERY_S = 10.0
_RESTARTS_WITHIN_S = 10.0
_VERIFYING_SILENT_S = 60.0

# Of one node, for all clients together.
_LOGS_AT_ONCE = 64
_FILES_AT_ONCE = 32
_QUESTIONS_AT_ONCE = 8
_QUESTION_WAITS_S = 5.0
_READING_CONNECTIONS = 4
"""For all of those above, and for the files that the brain wants there."""

_log = get_logger("orchestratord")


class TokenNotTaken(Unavailable):
    """The node asks for another token. The client on whose behalf it was asked has shown the right one here."""

    def __init__(self, node_id: str) -> None:
        super().__init__(
            Reason.UPSTREAM_UNAVAILABLE,
            f"node '{node_id}' does not take this orchestrator's token; the operator sets node_token in [orchestrator] "
            "(LLORCH_ORCHESTRATOR_NODE_TOKEN) to the node's, or one token for both",
        )


class NodeCommands:
    """Unary, idempotent by the ids that the brain chose. The result of each is posted as an event.

    `process` is which process of the pool manager this leads to, as it calls itself. What clients read or have staged
    goes over connections of its own, so that commands find theirs free.
    """

    def __init__(
        self,
        node_id: str,
        address: str,
        process: str,
        token: str | None,
        sequence: CommandSequence,
        post: Callable[[Event], None],
        tasks: TaskSupervisor,
    ) -> None:
        self.address = address
        self.process = process
        self._node_id = node_id
        self.sequence = sequence
        self._post = post
        self._tasks = tasks
        self._unreachable_since: float | None = None
        self._channel = open_channel(address, token=token)
        self._stub = pool_manager_service_pb2_grpc.PoolManagerServiceStub(self._channel)
        self._reading_channel = open_channel(address, token=token, max_connections=_READING_CONNECTIONS)
        self._reading = pool_manager_service_pb2_grpc.PoolManagerServiceStub(self._reading_channel)
        self._logs = FewAtOnce(_LOGS_AT_ONCE, _too_many(node_id, f"{_LOGS_AT_ONCE} logs are read"))
        self._files = FewAtOnce(_FILES_AT_ONCE, _too_many(node_id, f"{_FILES_AT_ONCE} files are pulled or verified"))
        self._questions = FewAtOnce(
            _QUESTIONS_AT_ONCE,
            _too_many(node_id, f"{_QUESTIONS_AT_ONCE} questions about tokens are answered"),
            wait_s=_QUESTION_WAITS_S,
        )
        self._to_forget: set[str] = set()
        self._is_forgetting = False

    async def close(self) -> None:
        await self._reading_channel.close()
        await self._channel.close()

    def start_worker(self, effect: StartWorker) -> None:
        self._tasks.spawn(f"start worker {effect.spec.worker_id}", self._start_worker(effect))

    def stop_worker(self, effect: StopWorker) -> None:
        self._tasks.spawn(f"stop worker {effect.worker_id}", self._stop_worker(effect))

    def stage_model(self, effect: StageModel) -> None:
        self._tasks.spawn(f"stage {effect.source}", self._stage_model(effect))

    async def pull(self, source: str, tell: Tell) -> None:
        """Stages a file for a client. Raises ResourceExhausted where too many are pulled or verified already."""
        async with self._files.place():
            await self.stage(source, tell)

    async def stage(self, source: str, tell: Tell | None = None) -> None:
        """Returns when the file is on the node, which the brain then knows. `tell` is called with the progress."""

        async def stage(control: control_pb2.ControlHeader) -> bool:
            request = pool_pb2.StageModelRequest(control=control, source=source)
            async with open_stream(self._reading.StageModel, request, idle_timeout_s=_STAGING_SILENT_S) as answers:
                async for answer in answers:
                    staged = answer.progress
                    if staged.complete:
                        facts = model_facts.from_proto(staged.facts)
                        self._post(events.ModelStaged(self._node_id, source, staged.done_mib, facts))
                    if tell is not None:
                        await tell(staged)
                    if staged.complete:
                        return True
            return False

        try:
            if await self._command(stage):
                return
        except (Unavailable, DeadlineExceeded) as error:
            if is_from_server(error) or isinstance(error, TokenNotTaken):
                raise
            raise type(error)(error.reason, self._silence(error)) from error.__cause__
        raise Unavailable(
            Reason.UPSTREAM_UNAVAILABLE,
            f"node '{self._node_id}' stopped staging before the file was complete; try again",
        )

    def delete_staged_model(self, effect: DeleteStagedModel) -> None:
        self._tasks.spawn(f"delete {effect.source}", self._delete_staged_model(effect))

    def forget_saved_session(self, effect: ForgetSavedSession) -> None:
        """Coalesces: after a restart of the orchestrator all sessions may end at one time."""
        self._to_forget.add(self._name(effect.app, effect.session_id))
        if not self._is_forgetting:
            self._is_forgetting = True
            self._tasks.spawn(f"forget saved sessions on {self._node_id}", self._forget_saved_sessions())

    def forget_all_saved_sessions(self) -> None:
        self._tasks.spawn(f"forget all saved sessions on {self._node_id}", self._forget())

    async def verify_model(self, source: str) -> str:
        """The digest of the file as it is on the disk now. Raises the node's error, and as `pull` does."""
        request = pool_pb2.VerifyStagedModelRequest(source=source)
        verifying = open_stream(self._reading.VerifyStagedModel, request, idle_timeout_s=_VERIFYING_SILENT_S)
        async with self._files.place(), token_taken(self._node_id), verifying as answers:
            async for answer in answers:
                if answer.digest:
                    return answer.digest
        raise Unavailable(
            Reason.UPSTREAM_UNAVAILABLE, f"node '{self._node_id}' stopped reading before the end of the file; try again"
        )

    async def read_tokens(
        self, source: str, engine: str, question: tokens_pb2.TokenQuestion, timeout_s: float
    ) -> tokens_pb2.TokenAnswer:
        """By the vocabulary in the file. Raises the node's error, or ResourceExhausted where too many ask."""
        request = pool_pb2.ReadStagedTokensRequest(source=source, engine=engine, question=question)
        now = asyncio.get_running_loop().time
        ends_at = now() + timeout_s
        async with self._questions.place(), token_taken(self._node_id):
            return (await call(self._reading.ReadStagedTokens, request, timeout_s=max(0.0, ends_at - now()))).answer

    @asynccontextmanager
    async def read_log(
        self, request: pool_pb2.PoolManagerServiceStreamWorkerLogRequest
    ) -> AsyncIterator[Incoming[pool_pb2.PoolManagerServiceStreamWorkerLogResponse]]:
        """The log of a worker, as it comes. Raises the node's error, or ResourceExhausted where too many read logs."""
        reading = open_stream(self._reading.StreamWorkerLog, request)
        async with self._logs.place(), token_taken(self._node_id), reading as answers:
            yield answers

    async def _start_worker(self, effect: StartWorker) -> None:
        worker_id, spec = effect.spec.worker_id, worker_spec.to_proto(effect.spec)
        control = control_pb2.ControlHeader()

        async def start(header: control_pb2.ControlHeader) -> None:
            control.CopyFrom(header)
            request = pool_pb2.PoolManagerServiceStartWorkerRequest(control=header, spec=spec)
            await call(self._stub.StartWorker, request, timeout_s=_CALL_S)

        try:
            await self._command(start)
        except LlorchError as error:
            arrived = self.sequence.known_from(control) if _may_have_arrived(error) else None
            self._post(events.WorkerStartFailed(worker_id, self._why(error), error.message, arrived))
        else:
            self._unreachable_since = None
            self._post(events.WorkerStartAccepted(worker_id, self.sequence.known_from(control)))

    async def _stop_worker(self, effect: StopWorker) -> None:
        """Its end is reported by the node; if the node is gone, so is the worker or will be."""
        save = [
            saved_session_pb2.SessionToSave(
                saved_session=self._name(one.app, one.session_id), keep_ms=whole_ms(one.keep_s)
            )
            for one in effect.save[:MOST_AT_ONCE]
        ]

        async def stop(control: control_pb2.ControlHeader) -> None:
            request = pool_pb2.PoolManagerServiceStopWorkerRequest(
                control=control, worker_id=effect.worker_id, save=save
            )
            await call(self._stub.StopWorker, request, timeout_s=_CALL_S)

        try:
            await self._command(stop)
        except LlorchError as error:
            _log.warning("stop_worker_failed", worker_id=effect.worker_id, reason=error.reason, error=error.message)
        else:
            _log.info("worker_told_to_end", worker_id=effect.worker_id, node_id=effect.node_id, why=effect.why)

    async def _delete_staged_model(self, effect: DeleteStagedModel) -> None:
        """A file that stays costs disk space and nothing else; the node's next full report tells what is there."""

        async def delete(control: control_pb2.ControlHeader) -> None:
            request = pool_pb2.DeleteStagedModelRequest(control=control, source=effect.source)
            await call(self._stub.DeleteStagedModel, request, timeout_s=_CALL_S)

        try:
            await self._command(delete)
        except LlorchError as error:
            _log.warning("delete_model_failed", node_id=self._node_id, reason=error.reason, error=error.message)
        else:
            self._post(events.StagedModelDeleted(self._node_id, effect.source))

    def _name(self, app: str, session_id: str) -> str:
        return saved_session_name(self.sequence.cluster_id, app, session_id)

    async def _forget_saved_sessions(self) -> None:
        while names := sorted(self._to_forget)[:MOST_AT_ONCE]:
            self._to_forget.difference_update(names)
            await self._forget(names)
        self._is_forgetting = False

    async def _forget(self, names: Sequence[str] | None = None) -> None:
        """None = all. What stays goes when its time is over, without a command."""

        async def forget(control: control_pb2.ControlHeader) -> None:
            request = pool_pb2.ForgetSavedSessionsRequest(control=control, saved_sessions=names)
            await call(self._stub.ForgetSavedSessions, request, timeout_s=_CALL_S)

        try:
            await self._command(forget)
        except LlorchError as error:
            _log.warning(
                "forget_saved_sessions_failed", node_id=self._node_id, reason=error.reason, error=error.message
            )

    async def _stage_model(self, effect: StageModel) -> None:
        news = _News(self._node_id, effect.source, self._post)
        try:
            await self.stage(effect.source, news.tell)
        except LlorchError as error:
            self._post(events.StagingFailed(self._node_id, effect.source, self._why(error), error.message))
        else:
            self._unreachable_since = None

    async def _command(self, send: Callable[[control_pb2.ControlHeader], Awaitable[Answer]]) -> Answer:
        """Raises the node's error; one about epochs says what the operator can do."""
        try:
            async with token_taken(self._node_id):
                return await self.sequence.command(send)
        except FailedPrecondition as error:
            if error.reason is not Reason.STALE_EPOCH:
                raise
            explained = stale_epoch.explained(self._node_id, error)
            self._post(events.NodeTroubled(self._node_id, explained.message))
            raise explained from error.__cause__

    def _silence(self, error: LlorchError) -> str:
        return (
            f"node '{self._node_id}' does not answer ({error.message}); see whether its pool manager runs, and whether "
            "the orchestrator's machine reaches it"
        )

    def _why(self, error: LlorchError) -> Reason:
        """A node that can't be reached is most likely restarting: it will report, and the brain asks it again then.

        That has a limit: commands may not reach it at all, although its own reports arrive.
        """
        if is_from_server(error) or isinstance(error, TokenNotTaken) or not isinstance(error, Unavailable | Internal):
            self._unreachable_since = None
            return error.reason
        now = asyncio.get_running_loop().time()
        if self._unreachable_since is None:
            self._unreachable_since = now
        return Reason.DRAINING if now - self._unreachable_since < _RESTARTS_WITHIN_S else error.reason


def _too_many(node_id: str, what: str) -> str:
    return f"{what} on node '{node_id}' already; try again when some of them have ended"


def _may_have_arrived(error: LlorchError) -> bool:
    """The call broke or its answer did not come in time; an error that the node itself answered has another reason."""
    if isinstance(error, TokenNotTaken):
        return False
    return isinstance(error, DeadlineExceeded) or error.reason is Reason.UPSTREAM_UNAVAILABLE


@asynccontextmanager
async def token_taken(node_id: str) -> AsyncIterator[None]:
    """Around whatever a node is asked: raises TokenNotTaken where it refuses the orchestrator."""
    try:
        yield
    except Unauthenticated as error:
        raise TokenNotTaken(node_id) from error


class _News:
    """The progress of a staging that a task waits for, seldom enough to be read."""

    def __init__(self, node_id: str, source: str, post: Callable[[Event], None]) -> None:
        self._node_id = node_id
        self._source = source
        self._post = post
        self._due_at = asyncio.get_running_loop().time() + _FIRST_NEWS_AFTER_S

    async def tell(self, progress: pool_pb2.StageProgress) -> None:
        now = asyncio.get_running_loop().time()
        if progress.complete or now < self._due_at:
            return
        self._due_at = now + _NEWS_EVERY_S
        total_mib = progress.total_mib if progress.HasField("total_mib") else None
        self._post(
            events.ModelComing(self._node_id, self._source, progress.done_mib, total_mib, progress.mib_per_second)
        )
