"""The link to one worker: its step frames come in, commands about runs go out."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from llama_orch.v2 import control_pb2, run_pb2, tokens_pb2, worker_service_pb2, worker_service_pb2_grpc
from llorch.background import TaskSupervisor
from llorch.errors import DeadlineExceeded, LlorchError, Reason, ResourceExhausted, Unavailable
from llorch.logs import get_logger
from llorch.rpc.client import call, open_channel, open_stream
from llorch.rpc.few_at_once import FewAtOnce
from llorch.rpc.status import is_from_server
from llorch.run_times import SILENT_FOR_S
from orchestratord.convert import task_output
from orchestratord.convert.runs import to_outcome, to_result
from orchestratord.convert.tasks import fill_run_spec
from orchestratord.core import events
from orchestratord.core.effects import StartRun
from orchestratord.core.events import Event
from orchestratord.core.facts.attempt import NOT_NOW
from orchestratord.core.facts.fleet import Endpoint
from orchestratord.core.facts.found_run import FoundRun
from orchestratord.core.facts.task import TaskError
from orchestratord.runtime.control import CommandSequence
from orchestratord.runtime.found_runs import to_found_run, to_task_record
from orchestratord.runtime.session_names import saved_session_name
from orchestratord.runtime.task_streams import MOST_BYTES_OF_ONE, TaskStreams

_CALL_S = 5.0
_ATTACH_AGAIN_AFTER_S = 0.2
START_WITHIN_S = 15.0
_START_AGAIN_AFTER_S = 0.25
# The worker answers one after the other, so more would only wait there.
_QUESTIONS_AT_ONCE = 8
_QUESTION_WAITS_S = 5.0

_log = get_logger("orchestratord")

Post = Callable[[Event], None]
_Command = (
    worker_service_pb2.StartRunRequest | worker_service_pb2.CancelRunRequest | worker_service_pb2.ReleaseRunsRequest
)


class WorkerLink:
    """Follows a worker for as long as `run` runs, and attaches again whenever the stream of frames breaks.

    The contents of a frame go into the logs at once; the brain gets events for starts, first tokens and ends only.
    Questions of clients go over a connection of their own, so that commands about runs find theirs free.
    """

    def __init__(
        self,
        worker_id: str,
        endpoint: Endpoint,
        commands: CommandSequence,
        streams: TaskStreams,
        post: Post,
        tasks: TaskSupervisor,
    ) -> None:
        self._worker_id = worker_id
        self._commands = commands
        self._streams = streams
        self._post = post
        self._tasks = tasks
        self._channel = open_channel(endpoint.address, token=endpoint.access_token)
        self._stub = worker_service_pb2_grpc.WorkerServiceStub(self._channel)
        self._asking_channel = open_channel(endpoint.address, token=endpoint.access_token)
        self._asking = worker_service_pb2_grpc.WorkerServiceStub(self._asking_channel)
        self._questions = FewAtOnce(
            _QUESTIONS_AT_ONCE,
            f"worker '{worker_id}' has too many questions about tokens to answer; try again shortly",
            wait_s=_QUESTION_WAITS_S,
        )
        self._attempts: set[str] = set()
        self._starting: set[str] = set()
        self._to_release: set[str] = set()
        self._is_closed = False
        self._told_of: set[Reason] = set()
        """Why the link broke since the worker was attached last, as the log has it."""

    async def run(self) -> None:
        try:
            while True:
                try:
                    await self._follow()
                    refused = None
                except LlorchError as error:
                    self._tell_once(error)
                    refused = _refusal(error)
                self._post(events.WorkerSilent(self._worker_id, refused))
                await asyncio.sleep(_ATTACH_AGAIN_AFTER_S)
        finally:
            self._is_closed = True
            await self._asking_channel.close()
            await self._channel.close()

    async def read_tokens(self, question: tokens_pb2.TokenQuestion, timeout_s: float) -> tokens_pb2.TokenAnswer:
        """Raises the worker's error, or ResourceExhausted where too many ask."""
        request = worker_service_pb2.ReadTokensRequest(question=question)
        now = asyncio.get_running_loop().time
        ends_at = now() + timeout_s
        async with self._questions.place():
            return (await call(self._asking.ReadTokens, request, timeout_s=max(0.0, ends_at - now()))).answer

    def adopt_run(self, attempt_id: str) -> None:
        """Of before the start of the orchestrator: the next connection of the stream reads it from its beginning."""
        self._attempts.add(attempt_id)

    def start_run(self, effect: StartRun) -> None:
        self._attempts.add(effect.attempt_id)
        self._starting.add(effect.attempt_id)
        self._tasks.spawn(f"start {effect.attempt_id}", self._start_run(effect))

    def cancel_run(self, attempt_id: str) -> None:
        self._tasks.spawn(f"cancel {attempt_id}", self._cancel_run(attempt_id))

    def release_runs(self, attempt_ids: tuple[str, ...]) -> None:
        """Coalesces: what is to be released while a release is on its way goes with the next one."""
        self._attempts.difference_update(attempt_ids)
        is_on_its_way = bool(self._to_release)
        self._to_release.update(attempt_ids)
        if not is_on_its_way:
            self._tasks.spawn(f"release runs of {self._worker_id}", self._release_runs())

    def _tell_once(self, error: LlorchError) -> None:
        """It is tried again several times a second, perhaps for minutes: each reason goes into the log once."""
        if error.reason not in self._told_of:
            self._told_of.add(error.reason)
            _log.info("worker_link_broke", worker_id=self._worker_id, reason=error.reason, error=error.message)

    async def _follow(self) -> None:
        """One connection of the stream; returns or raises when it is over."""
        await self._report_runs()
        await self._commands.command(self._read_frames)

    async def _read_frames(self, control: control_pb2.ControlHeader) -> None:
        request = worker_service_pb2.StreamRunsRequest(control=control, from_seq=self._positions())
        is_attached = False
        async with open_stream(self._stub.StreamRuns, request, idle_timeout_s=SILENT_FOR_S) as frames:
            async for response in frames:
                if not is_attached:
                    is_attached = True
                    self._told_of.clear()
                    self._post(events.WorkerAttached(self._worker_id))
                self._take_in(response.frame)

    def _take_in(self, frame: run_pb2.StepFrame) -> None:
        for delta in frame.deltas:
            attempt_id = delta.attempt_id
            self._starting.discard(attempt_id)  # it has arrived, whatever becomes of the answer
            if delta.HasField("started_after_ms"):
                self._post(events.AttemptStarted(attempt_id, delta.tokens_in, delta.cached_tokens))
            if delta.entries:
                self._write(attempt_id, delta)
            if delta.HasField("end"):
                self._keep_reading(attempt_id, delta.end)
                self._post(events.AttemptEnded(attempt_id, to_outcome(delta.end), to_result(delta.end)))
        for attempt_id in frame.unknown_attempt_ids:
            self._post(events.AttemptUnknown(attempt_id))
        self._streams.make_room(self._post)

    def _write(self, attempt_id: str, delta: run_pb2.RunDelta) -> None:
        stream = self._streams.writer(attempt_id)
        if stream is None:
            return
        came = stream.append(attempt_id, delta.entries)
        if came.decided:
            self._post(events.AttemptDecided(attempt_id))
        if came.is_first:
            self._post(events.AttemptFirstToken(attempt_id))
        if came.goes_on:
            self._post(events.OutputWentOn(stream.request.task_id))
        if stream.log.size > MOST_BYTES_OF_ONE:
            self._post(events.OutputTooLarge(stream.request.task_id, MOST_BYTES_OF_ONE))

    def _keep_reading(self, attempt_id: str, end: run_pb2.RunEnd) -> None:
        stream = self._streams.writer(attempt_id)
        if stream is not None and not end.choices:  # those of an answer are in its log
            stream.keep_reading(end)

    def _positions(self) -> dict[str, int]:
        """Where each log ends: the worker sends what comes after that (again).

        Without runs that the worker may not have received yet: it would call them unknown, and it sends them anyway.
        """
        logs = {attempt_id: self._streams.writer(attempt_id) for attempt_id in self._attempts - self._starting}
        return {attempt_id: 0 if stream is None else len(stream.log) for attempt_id, stream in logs.items()}

    async def _report_runs(self) -> None:
        found: list[FoundRun] = []
        page_token = ""
        while True:
            request = worker_service_pb2.ListRunsRequest(page_size=1000, page_token=page_token)
            answer = await call(self._stub.ListRuns, request, timeout_s=_CALL_S)
            found.extend(map(to_found_run, answer.runs))
            page_token = answer.next_page_token
            if not page_token:
                break
        self._post(events.RunsFound(self._worker_id, tuple(found)))

    async def _start_run(self, effect: StartRun) -> None:
        stream = self._streams.writer(effect.attempt_id)
        request = worker_service_pb2.StartRunRequest(
            attempt_id=effect.attempt_id,
            prefix=task_output.from_bytes(stream.log.packed()) if stream else (),
            promised_fingerprint=effect.promise.fingerprint.digest if effect.promise else "",
            saved_session=saved_session_name(self._commands.cluster_id, effect.request.app, effect.request.session_id),
        )
        if stream is not None:
            request.task_record = to_task_record(effect, stream.admitted_at)
            request.attempt.task_id, request.attempt.number = effect.request.task_id, effect.number
            request.attempt.log_epoch = stream.log.log_epoch
            request.attempt.prefix_entries, request.attempt.prefix_digest = len(stream.log), stream.log.digest
        fill_run_spec(request.spec, effect.request, effect.remaining_s)
        try:
            await self._command_in_time(request)
        except (Unavailable, DeadlineExceeded) as error:
            # Whether it arrived is unknown; the tombstone keeps it from running if it still does.
            _log.info("start_run_failed", attempt_id=effect.attempt_id, reason=error.reason)
            await self._cancel_run(effect.attempt_id)
            if error.reason in NOT_NOW:
                self._post(events.AttemptEnded(effect.attempt_id, TaskError(error.reason, error.message)))
            else:
                self._post(events.AttemptUnknown(effect.attempt_id))
        except LlorchError as error:
            failed = TaskError(error.reason, error.message, field=error.field)
            self._post(events.AttemptEnded(effect.attempt_id, failed))
        finally:
            self._starting.discard(effect.attempt_id)

    async def _command_in_time(self, request: worker_service_pb2.StartRunRequest) -> None:
        """A worker that is slow, or out of reach for a moment, is not given up: the same start is the same run. Raises
        the last error once that has taken too long, or what it was for can't write any more.
        """
        now = asyncio.get_running_loop().time
        ends_at = now() + START_WITHIN_S
        while True:
            try:
                await self._command(self._stub.StartRun, request)
            except (Unavailable, DeadlineExceeded, ResourceExhausted) as error:
                if request.attempt_id not in self._starting:  # its frames come
                    return
                is_wanted = not self._is_closed and self._streams.writer(request.attempt_id) is not None
                may_pass = not isinstance(error, ResourceExhausted) or error.reason in NOT_NOW
                if now() >= ends_at or not is_wanted or not may_pass:
                    raise
                await asyncio.sleep(_START_AGAIN_AFTER_S)
            else:
                return

    async def _cancel_run(self, attempt_id: str) -> None:
        """If this fails the worker is gone or silent, and the brain gets an event of its own for that."""
        request = worker_service_pb2.CancelRunRequest(attempt_id=attempt_id)
        await self._try(self._stub.CancelRun, request, "cancel_run_failed")

    async def _release_runs(self) -> None:
        """If this fails the worker forgets the runs by itself, 10 min after their end."""
        while self._to_release:
            releasing = sorted(self._to_release)
            request = worker_service_pb2.ReleaseRunsRequest(attempt_ids=releasing)
            await self._try(self._stub.ReleaseRuns, request, "release_runs_failed")
            self._to_release.difference_update(releasing)

    async def _command(self, method: "grpc.aio.UnaryUnaryMultiCallable[Any, Any]", request: _Command) -> None:
        """The request gets the header of a command."""

        async def send(control: control_pb2.ControlHeader) -> None:
            request.control.CopyFrom(control)
            await call(method, request, timeout_s=_CALL_S)

        await self._commands.command(send)

    async def _try(self, method: "grpc.aio.UnaryUnaryMultiCallable[Any, Any]", request: _Command, failure: str) -> None:
        try:
            await self._command(method, request)
        except LlorchError as error:
            _log.info(failure, worker_id=self._worker_id, reason=error.reason)


def _refusal(error: LlorchError) -> tuple[Reason, str] | None:
    """Where the worker answered, so that it can be reached, and will answer the same next time."""
    if isinstance(error, Unavailable | DeadlineExceeded) or not is_from_server(error):
        return None
    return error.reason, error.message
