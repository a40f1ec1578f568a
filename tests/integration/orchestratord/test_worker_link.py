"""The link to a worker whose channel goes away, or whose answers come late."""

# ruff: noqa: N802  # RPCs are named as the contract names them

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from llama_orch.v2 import log_entry_pb2, run_pb2, tokens_pb2, worker_service_pb2, worker_service_pb2_grpc
from llorch.auth import BearerAuth
from llorch.background import TaskSupervisor
from llorch.clock import SystemClock
from llorch.errors import (
    FailedPrecondition,
    LlorchError,
    PermissionDenied,
    Reason,
    ResourceExhausted,
    Unavailable,
    invalid_field,
)
from llorch.rpc import transport_options
from llorch.rpc.server import RpcServer
from orchestratord.core import events
from orchestratord.core.effects import StartRun
from orchestratord.core.facts.fleet import Endpoint
from orchestratord.core.facts.promise import UNPROVEN, Fingerprint, Promise
from orchestratord.core.facts.task import TaskError, TaskRequest
from orchestratord.runtime import worker_link
from orchestratord.runtime.authority import Authority
from orchestratord.runtime.control import CommandSequence
from orchestratord.runtime.session_names import saved_session_name
from orchestratord.runtime.task_streams import TaskStreams
from orchestratord.runtime.worker_link import WorkerLink
from orchestratord.store.interface import Incarnation
from support.memory_store import MemoryStore

SERVICE = worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name
REQUEST = TaskRequest("task-1", "m", run_pb2.RunSpec().SerializeToString(), "digest", 1)


class SlowWorker(worker_service_pb2_grpc.WorkerServiceServicer):
    """Answers a StartRun only when `go_on` is set, with `refuses` if there is one. Streams end when `breaks` is set."""

    def __init__(self) -> None:
        self.refuses: LlorchError | None = None
        self.refuses_streams: LlorchError | None = None
        self.start_came = asyncio.Event()
        self.go_on = asyncio.Event()
        self.breaks = asyncio.Event()
        self.positions: list[dict[str, int]] = []
        self.promised: list[str] = []
        self.starts: list[worker_service_pb2.StartRunRequest] = []
        self.begins: list[str] = []
        """Attempts that the next frame tells of."""
        self.too_slow_for = 0
        self.asked = 0
        self.may_answer = asyncio.Event()

    async def StartRun(self, request: Any, context: Any) -> worker_service_pb2.StartRunResponse:
        self.promised.append(request.promised_fingerprint)
        self.starts.append(request)
        self.start_came.set()
        await self.go_on.wait()
        if len(self.starts) <= self.too_slow_for:
            raise Unavailable(Reason.WORKER_NOT_READY, "in a moment")
        if self.refuses is not None:
            raise self.refuses
        return worker_service_pb2.StartRunResponse()

    async def ListRuns(self, request: Any, context: Any) -> worker_service_pb2.ListRunsResponse:
        return worker_service_pb2.ListRunsResponse()

    async def ReadTokens(self, request: Any, context: Any) -> worker_service_pb2.ReadTokensResponse:
        self.asked += 1
        await self.may_answer.wait()
        return worker_service_pb2.ReadTokensResponse()

    async def StreamRuns(self, request: Any, context: Any) -> None:  # type: ignore[override]  # a coroutine
        if self.refuses_streams is not None:
            raise self.refuses_streams
        self.positions.append(dict(request.from_seq))
        unknown = [attempt_id for attempt_id in request.from_seq if not self.go_on.is_set()]
        begun = [run_pb2.RunDelta(attempt_id=attempt_id, started_after_ms=1) for attempt_id in self.begins]
        frame = run_pb2.StepFrame(unknown_attempt_ids=unknown, deltas=begun)
        await context.write(worker_service_pb2.StreamRunsResponse(frame=frame))
        await self.breaks.wait()
        self.breaks.clear()


@asynccontextmanager
async def linked(posted: list[events.Event]) -> AsyncIterator[tuple[SlowWorker, WorkerLink, "asyncio.Task[None]"]]:
    worker = SlowWorker()  # type: ignore[abstract]  # what it lacks answers UNIMPLEMENTED
    server = RpcServer(name="worker", bind="127.0.0.1:0", authenticator=BearerAuth(None))
    server.add(SERVICE, worker_service_pb2_grpc.add_WorkerServiceServicer_to_server, worker)
    streams = TaskStreams()
    streams.open(REQUEST, 0, SystemClock().wall())
    streams.begin_attempt(REQUEST.task_id, "attempt-1")
    commands = CommandSequence(Authority(MemoryStore(), Incarnation("cluster", 1)), lambda: "node")
    endpoint = Endpoint(await server.start(), "")
    try:
        async with TaskSupervisor("test") as tasks:
            link = WorkerLink("worker-1", endpoint, commands, streams, posted.append, tasks)
            yield worker, link, tasks.spawn("link", link.run())
    finally:
        await server.stop(0)


async def wait_posted(posted: list[events.Event], event: events.Event, times: int = 1) -> None:
    async with asyncio.timeout(5):
        while posted.count(event) < times:
            await asyncio.sleep(0.01)


async def wait_started(link: WorkerLink) -> None:
    async with asyncio.timeout(5):
        while link._starting:
            await asyncio.sleep(0.01)


@pytest.mark.req("ORCH-1038")
async def test_a_worker_is_told_the_fingerprint_that_it_has_to_keep() -> None:
    posted: list[events.Event] = []
    async with linked(posted) as (worker, link, _):
        worker.go_on.set()
        for promise in (Promise(Fingerprint("9f86")), Promise(UNPROVEN), None):
            link.start_run(StartRun("worker-1", "attempt-1", REQUEST, None, promise))
            await wait_started(link)
        assert worker.promised == ["9f86", "", ""]


async def test_a_worker_is_told_what_the_session_of_a_run_is_called_on_disks() -> None:
    of_a_session = replace(REQUEST, app="chat-ui", session_id="colours")
    async with linked([]) as (worker, link, _):
        worker.go_on.set()
        for request in (of_a_session, REQUEST):
            link.start_run(StartRun("worker-1", "attempt-1", request, None))
            await wait_started(link)
        called = [start.saved_session for start in worker.starts]
        assert called == [saved_session_name("cluster", "chat-ui", "colours"), ""]


async def test_a_worker_that_goes_while_a_run_is_started_ends_nothing_else() -> None:
    posted: list[events.Event] = []
    async with linked(posted) as (worker, link, running):
        await wait_posted(posted, events.WorkerAttached("worker-1"))
        link.start_run(StartRun("worker-1", "attempt-1", REQUEST, None))
        await worker.start_came.wait()
        running.cancel()
        await wait_posted(posted, events.AttemptUnknown("attempt-1"))
        before = asyncio.all_tasks()
        link.cancel_run("attempt-1")
        link.release_runs(("attempt-1",))
        calls = asyncio.all_tasks() - before
        assert len(calls) == 2
        async with asyncio.timeout(5):
            await asyncio.gather(*calls)


async def test_a_run_that_is_just_being_started_is_not_lost_when_the_stream_breaks() -> None:
    posted: list[events.Event] = []
    async with linked(posted) as (worker, link, _):
        await wait_posted(posted, events.WorkerAttached("worker-1"))
        link.start_run(StartRun("worker-1", "attempt-1", REQUEST, None))
        await worker.start_came.wait()
        worker.breaks.set()
        await wait_posted(posted, events.WorkerAttached("worker-1"), times=2)
        worker.go_on.set()
        await wait_started(link)
        worker.breaks.set()
        await wait_posted(posted, events.WorkerAttached("worker-1"), times=3)
        assert worker.positions == [{}, {}, {"attempt-1": 0}]
        assert events.AttemptUnknown("attempt-1") not in posted


@pytest.mark.req("ORCH-1008")
async def test_a_worker_that_is_slow_to_take_a_run_is_asked_again_and_the_run_is_not_lost() -> None:
    posted: list[events.Event] = []
    async with linked(posted) as (worker, link, _):
        worker.too_slow_for = 2
        worker.go_on.set()
        link.start_run(StartRun("worker-1", "attempt-1", REQUEST, None, number=3))
        await wait_started(link)
        assert len(worker.starts) == 3
        assert {start.attempt.SerializeToString() for start in worker.starts} == {
            run_pb2.TaskAttempt(task_id="task-1", number=3, log_epoch=1).SerializeToString()
        }
        assert events.AttemptUnknown("attempt-1") not in posted


async def test_a_worker_whose_answer_is_late_has_the_run_when_its_frames_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_link, "_CALL_S", 0.2)
    monkeypatch.setattr(worker_link, "START_WITHIN_S", 0.5)
    posted: list[events.Event] = []
    async with linked(posted) as (worker, link, _):
        await wait_posted(posted, events.WorkerAttached("worker-1"))
        link.start_run(StartRun("worker-1", "attempt-1", REQUEST, None))
        await worker.start_came.wait()
        worker.begins.append("attempt-1")
        worker.breaks.set()
        await wait_posted(posted, events.AttemptStarted("attempt-1", 0, 0))
        await wait_started(link)
        await asyncio.sleep(1)  # nothing is posted
        assert events.AttemptUnknown("attempt-1") not in posted
        worker.go_on.set()


async def test_a_worker_that_does_not_take_a_run_for_long_loses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_link, "START_WITHIN_S", 0.3)
    posted: list[events.Event] = []
    async with linked(posted) as (worker, link, _):
        worker.too_slow_for = 1000
        worker.go_on.set()
        link.start_run(StartRun("worker-1", "attempt-1", REQUEST, None))
        await wait_started(link)
        (refused,) = [event for event in posted if isinstance(event, events.AttemptEnded)]
        assert refused.attempt_id == "attempt-1"
        assert isinstance(refused.outcome, TaskError)
        assert refused.outcome.reason is Reason.WORKER_NOT_READY


async def test_a_worker_that_never_answers_a_start_loses_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_link, "_CALL_S", 0.2)
    monkeypatch.setattr(worker_link, "START_WITHIN_S", 0.3)
    posted: list[events.Event] = []
    async with linked(posted) as (worker, link, _):
        link.start_run(StartRun("worker-1", "attempt-1", REQUEST, None))
        await wait_posted(posted, events.AttemptUnknown("attempt-1"))
        worker.go_on.set()


async def test_a_field_that_the_worker_refuses_is_named_in_the_end_of_the_task() -> None:
    posted: list[events.Event] = []
    async with linked(posted) as (worker, link, _):
        worker.refuses = invalid_field("generate.top_logprobs", "is 30")
        worker.go_on.set()
        link.start_run(StartRun("worker-1", "attempt-1", REQUEST, None))
        failed = TaskError(Reason.INVALID_FIELD, worker.refuses.message, field="generate.top_logprobs")
        await wait_posted(posted, events.AttemptEnded("attempt-1", failed))


@pytest.mark.parametrize("kind", [FailedPrecondition, PermissionDenied])
async def test_a_worker_that_answers_with_a_refusal_is_not_told_as_unreachable(kind: type[LlorchError]) -> None:
    posted: list[events.Event] = []
    async with linked(posted) as (worker, _, _):
        worker.refuses_streams = kind(Reason.STALE_EPOCH, "a newer orchestrator is in charge")
        worker.breaks.set()
        refused = (Reason.STALE_EPOCH, "a newer orchestrator is in charge")
        await wait_posted(posted, events.WorkerSilent("worker-1", refused))


async def test_a_worker_that_sends_without_end_is_told_of_and_one_task_is_no_more_than_one_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_link, "MOST_BYTES_OF_ONE", 1000)
    posted: list[events.Event] = []
    async with linked(posted) as (_, link, _task):
        for seq in range(20):
            entry = log_entry_pb2.LogEntry(seq=seq, text="x" * 100)
            link._take_in(run_pb2.StepFrame(deltas=[run_pb2.RunDelta(attempt_id="attempt-1", entries=[entry])]))
            if events.OutputTooLarge("task-1", 1000) in posted:
                break
        assert 8 <= seq <= 10


async def test_questions_are_few_at_once_and_leave_runs_their_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the stream of frames and the StartRun, the connection for runs is full; so is that for questions."""
    monkeypatch.setattr(transport_options, "CALLS_PER_CONNECTION", 2)
    monkeypatch.setattr(worker_link, "_QUESTIONS_AT_ONCE", 2)
    monkeypatch.setattr(worker_link, "_QUESTION_WAITS_S", 0.05)
    posted: list[events.Event] = []
    question = tokens_pb2.TokenQuestion()
    async with linked(posted) as (worker, link, _), asyncio.timeout(10):
        await wait_posted(posted, events.WorkerAttached("worker-1"))
        asking = [asyncio.ensure_future(link.read_tokens(question, 10)) for _ in range(2)]
        while worker.asked < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(ResourceExhausted, match="worker 'worker-1' has too many questions") as refused:
            await link.read_tokens(question, 10)
        assert refused.value.reason is Reason.TOO_MANY_CALLS
        link.start_run(StartRun("worker-1", "attempt-1", REQUEST, None))
        await worker.start_came.wait()
        worker.go_on.set()
        await wait_started(link)
        worker.may_answer.set()
        await asyncio.gather(*asking)
        assert worker.asked == 2
