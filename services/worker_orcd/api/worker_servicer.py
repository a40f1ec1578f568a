"""`WorkerService`."""

import asyncio
import secrets
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import grpc

from llama_orch.v2 import control_pb2, run_pb2, worker_pb2, worker_service_pb2, worker_service_pb2_grpc
from llorch.errors import Aborted, FailedPrecondition, Reason, Unavailable, invalid_field
from llorch.identifiers import check_id, new_id
from llorch.ports import split_address
from llorch.rpc.sessions_to_save import to_sessions_to_save
from llorch.rpc.slow_reader import write_with_deadline
from llorch.saved_sessions import check_saved_session
from worker_orcd.api.run_stream import WRITE_DEADLINE_S, RunStream, StreamContext
from worker_orcd.api.single_run import SingleRun
from worker_orcd.control_guard import ControlGuard
from worker_orcd.convert.engine import refuse_other_promise, to_engine_info
from worker_orcd.convert.log_entries import to_log_prefix
from worker_orcd.convert.run_spec import spec_fingerprint, to_run_spec
from worker_orcd.convert.runs import to_cancel_outcome, to_keepsake, to_listed_run
from worker_orcd.convert.tokens import to_answer, to_question
from worker_orcd.engine_info import EngineInfo
from worker_orcd.resident_memory import resident_mib
from worker_orcd.run_keeper import RunKeeper
from worker_orcd.token_desk import TokenDesk

MAX_TASK_RECORD_BYTES = 256 * 1024
DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
MOST_PAGE_BYTES = 4 * 1024 * 1024
"""Of runs with their prompts; one that is larger comes alone."""

Context = grpc.aio.ServicerContext[Any, Any]
ExecuteContext = grpc.aio.ServicerContext[object, worker_service_pb2.ExecuteResponse]


class WorkerServicer(worker_service_pb2_grpc.WorkerServiceServicer):
    """Answers UNAVAILABLE / WORKER_NOT_READY until `open`; the Shutdown RPC sets `stop`.

    `adopted` is called with the address of the pool manager that takes this worker over; None without a pool manager.
    """

    def __init__(self, worker_id: str, stop: asyncio.Event, adopted: Callable[[str], None] | None = None) -> None:
        self._worker_id = worker_id
        self._adopted = adopted
        self._keeper: RunKeeper | None = None
        self._metrics_address = ""
        self._tokens: TokenDesk | None = None
        self._guard = ControlGuard()
        self._stream: RunStream | None = None
        self._stop = stop
        self.save_s: Mapping[str, float] = {}
        """The sessions that are to be saved before the end, and for how many seconds."""

    def open(self, keeper: RunKeeper, metrics_address: str = "") -> None:
        """The engine is loaded and tested: calls are served from here on."""
        self._keeper = keeper
        self._metrics_address = metrics_address
        self._tokens = TokenDesk(keeper.engine.token_reader())

    def close(self) -> None:
        """The runs are over: the stream ends once everything is sent."""
        if self._stream is not None:
            self._stream.close()

    async def StartRun(
        self, request: worker_service_pb2.StartRunRequest, context: Context
    ) -> worker_service_pb2.StartRunResponse:
        keeper = self._ready_keeper()
        self._check_control(request.control)
        check_id(request.attempt_id, "attempt_id")
        session = check_saved_session(request.saved_session, "saved_session") if request.saved_session else ""
        if len(request.task_record) > MAX_TASK_RECORD_BYTES:
            raise invalid_field("task_record", f"has at most {MAX_TASK_RECORD_BYTES} bytes")
        kept = to_keepsake(request)
        spec = to_run_spec(request.spec, kept.attempt.task_id if kept.attempt is not None else request.attempt_id)
        if request.spec.HasField("generate") and not request.spec.generate.sampling.HasField("seed"):
            raise invalid_field("spec.generate.sampling.seed", "has to be set")
        refuse_other_promise(request.promised_fingerprint, keeper.engine.info().fingerprint)
        await keeper.start(
            request.attempt_id,
            spec_fingerprint(kept.spec, request.prefix),
            spec,
            kept=kept,
            prefix=to_log_prefix(request.prefix),
            session=session,
        )
        return worker_service_pb2.StartRunResponse()

    async def StreamRuns(  # type: ignore[override]  # a coroutine that writes, not a generator
        self, request: worker_service_pb2.StreamRunsRequest, context: StreamContext
    ) -> None:
        keeper = self._ready_keeper()
        self._check_control(request.control)
        stream = RunStream(keeper, request.from_seq)
        self._take_over(stream)
        keeper.watch(stream)
        keeper.table.attach()
        try:
            await stream.write_to(context)
        finally:
            keeper.unwatch(stream)
            if self._stream is stream:
                self._stream = None
                keeper.table.detach()

    async def CancelRun(
        self, request: worker_service_pb2.CancelRunRequest, context: Context
    ) -> worker_service_pb2.CancelRunResponse:
        keeper = self._ready_keeper()
        self._check_control(request.control)
        outcome = keeper.cancel(check_id(request.attempt_id, "attempt_id"))
        return worker_service_pb2.CancelRunResponse(outcome=to_cancel_outcome(outcome))

    async def ReleaseRuns(
        self, request: worker_service_pb2.ReleaseRunsRequest, context: Context
    ) -> worker_service_pb2.ReleaseRunsResponse:
        keeper = self._ready_keeper()
        self._check_control(request.control)
        for attempt_id in request.attempt_ids:
            check_id(attempt_id, "attempt_ids")
        for attempt_id in request.attempt_ids:
            keeper.release(attempt_id)
        return worker_service_pb2.ReleaseRunsResponse()

    async def ListRuns(
        self, request: worker_service_pb2.ListRunsRequest, context: Context
    ) -> worker_service_pb2.ListRunsResponse:
        """Pages by attempt id; the token of a page is the last id of the page before."""
        if request.page_size > MAX_PAGE_SIZE:
            raise invalid_field("page_size", f"is at most {MAX_PAGE_SIZE}")
        size = request.page_size or DEFAULT_PAGE_SIZE
        table = self._ready_keeper().table
        runs = sorted(table.shown(), key=lambda run: run.attempt_id)
        first = bisect_right(runs, request.page_token, key=lambda run: run.attempt_id)
        response, page_bytes = worker_service_pb2.ListRunsResponse(), 0
        for run in runs[first : first + size]:
            listed = to_listed_run(run, table.now)
            page_bytes += listed.ByteSize()
            if response.runs and page_bytes > MOST_PAGE_BYTES:
                break
            response.runs.append(listed)
        if first + len(response.runs) < len(runs):
            response.next_page_token = response.runs[-1].attempt_id
        return response

    async def Execute(  # type: ignore[override]  # as StreamRuns
        self, request: worker_service_pb2.ExecuteRequest, context: ExecuteContext
    ) -> None:
        keeper = self._ready_keeper()
        spec = run_pb2.RunSpec()
        spec.CopyFrom(request.spec)
        if spec.HasField("generate") and not spec.generate.sampling.HasField("seed"):
            spec.generate.sampling.seed = secrets.randbits(64)
        attempt_id = new_id("execute")
        single = SingleRun(attempt_id)
        keeper.watch(single)
        try:
            await keeper.start(attempt_id, b"", to_run_spec(spec, attempt_id), private=True)
            ended = False
            while not ended:
                delta = await single.next_delta()
                await write_with_deadline(context, worker_service_pb2.ExecuteResponse(delta=delta), WRITE_DEADLINE_S)
                ended = delta.HasField("end")
        finally:
            keeper.unwatch(single)
            keeper.release(attempt_id)

    async def ReadTokens(
        self, request: worker_service_pb2.ReadTokensRequest, context: Context
    ) -> worker_service_pb2.ReadTokensResponse:
        """Changes nothing, so it needs no command's header."""
        if self._tokens is None:
            raise _not_ready()
        answer = await self._tokens.answer(to_question(request.question))
        return worker_service_pb2.ReadTokensResponse(answer=to_answer(answer))

    async def GetInfo(
        self, request: worker_service_pb2.GetInfoRequest, context: Context
    ) -> worker_service_pb2.GetInfoResponse:
        """Answers the worker's id even while it loads, so that a caller can tell which worker listens here."""
        response = worker_service_pb2.GetInfoResponse(worker_id=self._worker_id)
        if self._keeper is not None:
            response.engine.CopyFrom(to_engine_info(self._info(self._keeper)))
        return response

    async def Adopt(
        self, request: worker_service_pb2.AdoptRequest, context: Context
    ) -> worker_service_pb2.AdoptResponse:
        split_address(request.ready_address)
        if self._adopted is None:
            raise FailedPrecondition(
                Reason.OTHER_STATE_NEEDED, "this worker was started by hand and has no pool manager"
            )
        self._adopted(request.ready_address)
        response = worker_service_pb2.AdoptResponse(worker_id=self._worker_id)
        if self._keeper is not None:
            response.engine.CopyFrom(to_engine_info(self._info(self._keeper)))
        return response

    async def GetStats(
        self, request: worker_service_pb2.GetStatsRequest, context: Context
    ) -> worker_service_pb2.GetStatsResponse:
        keeper = self._ready_keeper()
        stats = keeper.engine.stats()
        return worker_service_pb2.GetStatsResponse(
            stats=worker_pb2.WorkerStats(
                slots_busy=stats.slots_busy + keeper.reading,
                runs_kept=len(keeper.table),
                steps=stats.steps,
                tokens_generated=stats.tokens_generated,
                tokens_prefilled=stats.tokens_prefilled,
                tokens_per_second=keeper.tokens_per_second,
                kv_used_tokens=stats.kv_used_tokens,
                rss_mib=resident_mib(),
                tokens_cached=stats.tokens_cached,
                warm_prefixes=stats.warm_prefixes,
                host_cache_mib=stats.host_cache_bytes // 2**20,
                runs_decoding=keeper.decoding,
            )
        )

    async def Shutdown(
        self, request: worker_service_pb2.ShutdownRequest, context: Context
    ) -> worker_service_pb2.ShutdownResponse:
        if not self._stop.is_set():
            self.save_s = to_sessions_to_save(request.save)
        self._stop.set()
        return worker_service_pb2.ShutdownResponse()

    def _info(self, keeper: RunKeeper) -> EngineInfo:
        return replace(keeper.engine.info(), metrics_address=self._metrics_address)

    def _ready_keeper(self) -> RunKeeper:
        if self._keeper is None:
            raise _not_ready()
        return self._keeper

    def _check_control(self, control: control_pb2.ControlHeader) -> None:
        self._guard.check(control.cluster_id, control.control_epoch, attached=self._stream is not None)

    def _take_over(self, stream: RunStream) -> None:
        """The guard has let the new reader pass, so that it is of the same epoch or a higher one."""
        if self._stream is not None:
            self._stream.supersede(Aborted(Reason.STALE_EPOCH, "a newer stream took this one's place"))
        self._stream = stream


def _not_ready() -> Unavailable:
    return Unavailable(Reason.WORKER_NOT_READY, "this worker is still loading its model", retry_after_ms=1000)
