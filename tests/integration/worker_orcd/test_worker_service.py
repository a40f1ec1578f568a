"""`WorkerService` over a real connection, with the simulated engine behind it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from llama_orch.v2 import (
    cancel_pb2,
    control_pb2,
    log_entry_pb2,
    run_pb2,
    task_event_pb2,
    tokens_pb2,
    worker_service_pb2,
)
from llorch.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    Reason,
    ResourceExhausted,
    Unavailable,
)
from llorch.rpc.client import call, open_stream
from llorch.rpc.fingerprints import digest_of
from llorch.rpc.log_digest import digest_after
from support.worker_service import CONTROL, Served, StartWorker, run_spec
from worker_orcd.api.worker_servicer import WorkerServicer
from worker_orcd.convert.engine import to_fingerprint
from worker_orcd.engines.sim import sim_text, sim_tokens
from worker_orcd.engines.sim.parameters import Fault, FaultKind, SimParameters

PACED = SimParameters(decode_tokens_per_s=200)
FOREVER = SimParameters(decode_tokens_per_s=50)


def header(epoch: int) -> control_pb2.ControlHeader:
    return control_pb2.ControlHeader(cluster_id="c", control_epoch=epoch, command_seq=1)


async def start_run(worker: Served, attempt_id: str, spec: run_pb2.RunSpec | None = None, **more: Any) -> None:
    request = worker_service_pb2.StartRunRequest(
        control=CONTROL, attempt_id=attempt_id, spec=spec or run_spec(), **more
    )
    await call(worker.stub.StartRun, request, timeout_s=5)


async def cancel_run(worker: Served, attempt_id: str) -> cancel_pb2.CancelOutcome.ValueType:
    request = worker_service_pb2.CancelRunRequest(control=CONTROL, attempt_id=attempt_id)
    return (await call(worker.stub.CancelRun, request, timeout_s=5)).outcome


async def release_runs(worker: Served, *attempt_ids: str) -> int:
    request = worker_service_pb2.ReleaseRunsRequest(control=CONTROL, attempt_ids=attempt_ids)
    await call(worker.stub.ReleaseRuns, request, timeout_s=5)
    return worker.keeper.slots_free


@dataclass
class Reader:
    """Reads a StreamRuns and keeps what it said."""

    frames: AsyncIterator[worker_service_pb2.StreamRunsResponse]
    entries: dict[str, list[log_entry_pb2.LogEntry]] = field(default_factory=dict)
    ends: dict[str, run_pb2.RunEnd] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    slots_free: int = -1

    async def next_frame(self) -> run_pb2.StepFrame:
        frame = (await asyncio.wait_for(anext(self.frames), 5)).frame
        for delta in frame.deltas:
            assert delta.attempt_id not in self.ends, "nothing may follow an end"
            self.entries.setdefault(delta.attempt_id, []).extend(delta.entries)
            if delta.HasField("started_after_ms"):
                self.starts[delta.attempt_id] = self.starts.get(delta.attempt_id, 0) + 1
            if delta.HasField("end"):
                self.ends[delta.attempt_id] = delta.end
        self.unknown += frame.unknown_attempt_ids
        self.slots_free = frame.slots_free
        return frame

    async def until_ended(self, *attempt_ids: str) -> None:
        while not self.ends.keys() >= set(attempt_ids):
            await self.next_frame()

    async def read_on(self) -> None:
        """Until the stream ends with an error."""
        while True:
            await self.next_frame()

    def text(self, attempt_id: str) -> str:
        return "".join(entry.text for entry in self.entries[attempt_id])


@asynccontextmanager
async def reading(worker: Served, *, epoch: int = 1, **from_seq: int) -> AsyncIterator[Reader]:
    request = worker_service_pb2.StreamRunsRequest(control=header(epoch), from_seq=from_seq)
    async with open_stream(worker.stub.StreamRuns, request) as frames:
        yield Reader(frames)


async def test_a_run_is_streamed_from_start_to_end(start_worker: StartWorker) -> None:
    worker = await start_worker()
    await start_run(worker, "a", run_spec(max_tokens=100))
    async with reading(worker) as reader:
        await reader.until_ended("a")
    assert reader.text("a") == sim_text(7, 0, 100)
    assert [entry.seq for entry in reader.entries["a"]] == list(range(100))
    assert reader.starts == {"a": 1}
    end = reader.ends["a"]
    assert (end.tokens_in, end.tokens_out, end.choices[0].tokens_out) == (1, 100, 100)
    assert end.choices[0].finish_reason == task_event_pb2.FINISH_REASON_LENGTH
    assert reader.slots_free == 4


async def test_runs_started_later_appear_on_the_open_stream(start_worker: StartWorker) -> None:
    worker = await start_worker(PACED)
    async with reading(worker) as reader:
        assert list((await reader.next_frame()).deltas) == []
        await start_run(worker, "a", run_spec(max_tokens=20))
        await start_run(worker, "b", run_spec(max_tokens=10, seed=8))
        await reader.until_ended("a", "b")
    assert reader.text("a") == sim_text(7, 0, 20)
    assert reader.text("b") == sim_text(8, 0, 10)


async def test_a_silent_stream_says_every_second_that_the_worker_lives(start_worker: StartWorker) -> None:
    worker = await start_worker()
    loop = asyncio.get_running_loop()
    async with reading(worker) as reader:
        await reader.next_frame()
        began_at = loop.time()
        frame = await reader.next_frame()
    assert 0.5 < loop.time() - began_at < 3
    assert (list(frame.deltas), frame.slots_free) == ([], 4)


@pytest.mark.req("ORCH-1008")
async def test_a_reader_that_comes_back_gets_what_it_missed_and_nothing_twice(start_worker: StartWorker) -> None:
    worker = await start_worker(PACED)
    await start_run(worker, "a", run_spec(max_tokens=40))
    async with reading(worker) as first:
        while len(first.entries.get("a", [])) < 10:
            await first.next_frame()
    seen = len(first.entries["a"])
    async with reading(worker, a=seen) as second:
        await second.until_ended("a")
    assert first.text("a") + second.text("a") == sim_text(7, 0, 40)
    assert second.entries["a"][0].seq == seen


async def test_an_ended_run_is_told_to_every_later_stream_until_it_is_released(start_worker: StartWorker) -> None:
    worker = await start_worker()
    await start_run(worker, "a")
    for _ in range(2):
        async with reading(worker) as reader:
            await reader.until_ended("a")
            assert reader.text("a") == sim_text(7, 0, 5)
    assert await release_runs(worker, "a") == 4
    async with reading(worker, a=0) as reader:
        assert list((await reader.next_frame()).deltas) == []
    assert reader.unknown == ["a"]


async def test_an_unknown_attempt_is_named_once_and_never_started(start_worker: StartWorker) -> None:
    worker = await start_worker()
    async with reading(worker, ghost=3) as reader:
        await reader.next_frame()
        await reader.next_frame()
    assert reader.unknown == ["ghost"]
    assert len(worker.keeper.table) == 0


async def test_a_position_beyond_the_log_is_refused(start_worker: StartWorker) -> None:
    worker = await start_worker()
    await start_run(worker, "a")
    async with reading(worker) as reader:
        await reader.until_ended("a")
    with pytest.raises(InvalidArgument) as refused:
        async with reading(worker, a=6) as reader:
            await reader.next_frame()
    assert refused.value.reason is Reason.INVALID_CURSOR


async def test_a_stream_of_a_higher_epoch_takes_over(start_worker: StartWorker) -> None:
    worker = await start_worker(FOREVER)
    await start_run(worker, "a", run_spec(max_tokens=None))
    async with reading(worker, epoch=1) as old, reading(worker, epoch=2) as new:
        await old.next_frame()
        await new.next_frame()
        with pytest.raises(Aborted) as ended:
            await old.read_on()
        assert ended.value.reason is Reason.STALE_EPOCH
        with pytest.raises(FailedPrecondition) as stale:
            await cancel_run(worker, "a")
        assert stale.value.reason is Reason.STALE_EPOCH
        while not new.entries.get("a"):
            await new.next_frame()


async def test_a_newer_stream_of_the_same_epoch_replaces_the_older_one(start_worker: StartWorker) -> None:
    worker = await start_worker()
    async with reading(worker) as old:
        await old.next_frame()
        async with reading(worker) as new:
            await new.next_frame()
            with pytest.raises(Aborted):
                await old.read_on()
            await new.next_frame()


async def test_a_stream_of_a_lower_epoch_is_refused(start_worker: StartWorker) -> None:
    worker = await start_worker()
    async with reading(worker, epoch=5) as current:
        await current.next_frame()
        with pytest.raises(FailedPrecondition):
            async with reading(worker, epoch=4) as stale:
                await stale.next_frame()


async def test_the_same_start_twice_is_one_run_and_another_spec_is_refused(start_worker: StartWorker) -> None:
    worker = await start_worker(FOREVER)
    await start_run(worker, "a", run_spec(max_tokens=None))
    hurried = run_spec(max_tokens=None)
    await start_run(worker, "a", hurried)
    assert worker.keeper.slots_free == 3
    with pytest.raises(AlreadyExists):
        await start_run(worker, "a", run_spec(seed=8))


async def test_a_retried_start_may_have_less_time_left(start_worker: StartWorker) -> None:
    worker = await start_worker(FOREVER)
    spec = run_spec(max_tokens=None)
    for remaining_ms in (60_000, 50_000):
        spec.remaining_ms = remaining_ms
        await start_run(worker, "a", spec)
        assert worker.keeper.slots_free == 3


async def test_more_runs_than_slots_are_refused(start_worker: StartWorker) -> None:
    worker = await start_worker(FOREVER, slots=1)
    await start_run(worker, "a", run_spec(max_tokens=None))
    with pytest.raises(ResourceExhausted) as refused:
        await start_run(worker, "b")
    assert refused.value.reason is Reason.NO_FREE_SLOT


@pytest.mark.req("ORCH-1006")
async def test_cancel_ends_the_run_within_a_step_and_frees_its_slot(start_worker: StartWorker) -> None:
    worker = await start_worker(FOREVER, slots=1)
    await start_run(worker, "a", run_spec(max_tokens=None))
    async with reading(worker) as reader:
        while not reader.entries.get("a"):
            await reader.next_frame()
        assert await cancel_run(worker, "a") == cancel_pb2.CANCEL_OUTCOME_CANCELLED
        await reader.until_ended("a")
        assert reader.ends["a"].choices[0].finish_reason == task_event_pb2.FINISH_REASON_CANCELLED
        assert reader.slots_free == 1
        assert await cancel_run(worker, "a") == cancel_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
        assert await cancel_run(worker, "never") == cancel_pb2.CANCEL_OUTCOME_UNKNOWN


async def test_cancel_in_prefill_frees_the_slot(start_worker: StartWorker) -> None:
    worker = await start_worker(SimParameters(prefill_tokens_per_s=10), slots=1)
    await start_run(worker, "a", run_spec("x" * 4000))
    async with reading(worker) as reader:
        await cancel_run(worker, "a")
        await reader.until_ended("a")
    assert reader.entries["a"] == []
    assert reader.slots_free == 1


async def test_a_start_after_its_cancel_is_refused(start_worker: StartWorker) -> None:
    worker = await start_worker()
    await cancel_run(worker, "a")
    with pytest.raises(FailedPrecondition) as refused:
        await start_run(worker, "a")
    assert refused.value.reason is Reason.ATTEMPT_RELEASED


async def test_release_of_a_running_run_cancels_it(start_worker: StartWorker) -> None:
    worker = await start_worker(FOREVER, slots=1)
    await start_run(worker, "a", run_spec(max_tokens=None))
    await release_runs(worker, "a")
    async with reading(worker) as reader:
        while (await reader.next_frame()).slots_free == 0:
            pass
    assert reader.ends == {}


async def test_a_deadline_ends_the_run(start_worker: StartWorker) -> None:
    worker = await start_worker(FOREVER)
    spec = run_spec(max_tokens=None)
    spec.remaining_ms = 100
    await start_run(worker, "a", spec)
    async with reading(worker) as reader:
        await reader.until_ended("a")
    assert reader.ends["a"].choices[0].finish_reason == task_event_pb2.FINISH_REASON_DEADLINE


@pytest.mark.req("WORK-3008", "ORCH-1008")
async def test_a_run_with_a_prefix_goes_on_at_the_next_index(start_worker: StartWorker) -> None:
    worker = await start_worker()
    prefix = [
        log_entry_pb2.LogEntry(seq=seq, token_ids=[token.token_id], text=token.text)
        for seq, token in enumerate(sim_tokens(7, 0, 12))
    ]
    await start_run(worker, "a", run_spec(max_tokens=20), prefix=prefix)
    async with reading(worker) as reader:
        await reader.until_ended("a")
    assert reader.entries["a"][0].seq == 12
    assert sim_text(7, 0, 12) + reader.text("a") == sim_text(7, 0, 20)
    assert reader.ends["a"].tokens_out == 8


@pytest.mark.req("ORCH-1038", "WORK-3003")
async def test_bytes_that_are_promised_under_another_fingerprint_are_refused(start_worker: StartWorker) -> None:
    """Whatever the orchestrator holds the worker to be."""
    worker, other = await start_worker(), await start_worker(SimParameters(device="RTX 4090"))
    spec = run_spec()
    spec.deterministic = True
    promised = digest_of(to_fingerprint(worker.keeper.engine.info().fingerprint))
    with pytest.raises(FailedPrecondition, match="which has simulated, RTX 4090, sim 1") as refused:
        await start_run(other, "a", spec, promised_fingerprint=promised)
    assert refused.value.reason is Reason.DETERMINISM_UNAVAILABLE
    assert len(other.keeper.table) == 0
    await start_run(worker, "a", spec, promised_fingerprint=promised)
    async with reading(worker) as reader:
        await reader.until_ended("a")
    assert digest_of(reader.ends["a"].receipt.fingerprint) == promised


@pytest.mark.req("ORCH-1038")
async def test_an_orchestrator_of_before_tells_no_fingerprint_and_none_is_compared(start_worker: StartWorker) -> None:
    worker = await start_worker()
    spec = run_spec()
    spec.deterministic = True
    await start_run(worker, "a", spec)
    async with reading(worker) as reader:
        await reader.until_ended("a")
    assert reader.ends["a"].HasField("receipt")


async def test_a_prefix_with_a_gap_is_refused(start_worker: StartWorker) -> None:
    worker = await start_worker()
    with pytest.raises(InvalidArgument, match="prefix"):
        await start_run(worker, "a", prefix=[log_entry_pb2.LogEntry(seq=1, token_ids=[1], text="x")])


async def test_several_choices_share_a_run(start_worker: StartWorker) -> None:
    worker = await start_worker()
    spec = run_spec(max_tokens=6)
    spec.generate.n = 2
    await start_run(worker, "a", spec)
    async with reading(worker) as reader:
        await reader.until_ended("a")
    for choice in (0, 1):
        text = "".join(entry.text for entry in reader.entries["a"] if entry.choice == choice)
        assert text == sim_text(7, choice, 6)
    assert [choice.choice for choice in reader.ends["a"].choices] == [0, 1]


async def test_a_failing_run_ends_with_an_error_and_the_others_go_on(start_worker: StartWorker) -> None:
    fault = Fault(FaultKind.FAIL_RUN, at_token=3, marker="bad")
    worker = await start_worker(SimParameters(faults=(fault,)))
    await start_run(worker, "a", run_spec("good", max_tokens=50))
    await start_run(worker, "b", run_spec("bad", max_tokens=50))
    async with reading(worker) as reader:
        await reader.until_ended("a", "b")
    assert reader.ends["b"].error.retryable
    assert len(reader.entries["b"]) == 3
    assert reader.text("a") == sim_text(7, 0, 50)


async def test_a_run_that_the_engine_refuses_leaves_no_trace(start_worker: StartWorker) -> None:
    worker = await start_worker(SimParameters(faults=(Fault(FaultKind.REFUSE, marker="bad"),)), slots=1)
    for _ in range(2):
        with pytest.raises(FailedPrecondition):
            await start_run(worker, "a", run_spec("bad"))
    await start_run(worker, "a", run_spec("good"))


async def test_runs_are_listed_in_pages_with_what_was_given_to_keep(start_worker: StartWorker) -> None:
    worker = await start_worker(FOREVER)
    for attempt_id in ("c", "a", "b"):
        await start_run(worker, attempt_id, run_spec(max_tokens=None), task_record=attempt_id.encode())
    first = await call(worker.stub.ListRuns, worker_service_pb2.ListRunsRequest(page_size=2), timeout_s=5)
    assert [(run.attempt_id, run.task_record) for run in first.runs] == [("a", b"a"), ("b", b"b")]
    rest = await call(
        worker.stub.ListRuns,
        worker_service_pb2.ListRunsRequest(page_size=2, page_token=first.next_page_token),
        timeout_s=5,
    )
    assert ([run.attempt_id for run in rest.runs], rest.next_page_token) == (["c"], "")
    assert {run.state for run in (*first.runs, *rest.runs)} == {run_pb2.RUN_STATE_RUNNING}


@pytest.mark.req("ORCH-1008")
async def test_a_run_tells_which_attempt_of_which_task_it_is_and_what_it_was_given_to_do(
    start_worker: StartWorker,
) -> None:
    worker = await start_worker(FOREVER)
    prefix = [log_entry_pb2.LogEntry(seq=0, token_ids=[sim_tokens(7, 0, 1)[0].token_id], text=sim_text(7, 0, 1))]
    attempt = run_pb2.TaskAttempt(
        task_id="task-1", number=2, log_epoch=5, prefix_entries=1, prefix_digest=digest_after(prefix)
    )
    spec = run_spec(max_tokens=None)
    spec.remaining_ms = 60_000
    await start_run(worker, "a", spec, attempt=attempt, prefix=prefix)
    (run,) = (await call(worker.stub.ListRuns, worker_service_pb2.ListRunsRequest(), timeout_s=5)).runs
    spec.ClearField("remaining_ms")
    assert (run.attempt, run.spec) == (attempt, spec)
    assert run.HasField("output_age_ms")  # its prefix is output
    assert run.output_age_ms == run.age_ms


@pytest.mark.parametrize(
    "wrong",
    [{"number": 0}, {"task_id": ""}, {"prefix_entries": 1}, {"prefix_digest": 1}],
    ids=["no number", "no task", "another length", "another digest"],
)
async def test_an_attempt_that_does_not_begin_where_its_prefix_ends_is_refused(
    start_worker: StartWorker, wrong: dict[str, Any]
) -> None:
    worker = await start_worker()
    told: dict[str, Any] = {"task_id": "task-1", "number": 1, "log_epoch": 1, **wrong}
    with pytest.raises(InvalidArgument, match="attempt"):
        await start_run(worker, "a", attempt=run_pb2.TaskAttempt(**told))
    await start_run(worker, "a")


async def test_runs_with_long_prompts_are_listed_in_pages_that_fit_into_a_message(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker_orcd.api.worker_servicer.MOST_PAGE_BYTES", 1000)
    worker = await start_worker(FOREVER)
    for attempt_id in ("a", "b", "c"):
        await start_run(worker, attempt_id, run_spec("word " * 150, max_tokens=None))
    found, token = list[str](), ""
    while len(found) < 3:
        request = worker_service_pb2.ListRunsRequest(page_token=token)
        page = await call(worker.stub.ListRuns, request, timeout_s=5)
        assert len(page.runs) == 1
        found += [run.attempt_id for run in page.runs]
        token = page.next_page_token
    assert (found, token) == (["a", "b", "c"], "")


async def test_execute_runs_once_and_leaves_nothing(start_worker: StartWorker) -> None:
    worker = await start_worker()
    request = worker_service_pb2.ExecuteRequest(spec=run_spec(max_tokens=50))
    entries: list[log_entry_pb2.LogEntry] = []
    ended = False
    async with open_stream(worker.stub.Execute, request) as answers:
        async for answer in answers:
            entries += answer.delta.entries
            ended = answer.delta.HasField("end")
    assert ended
    assert "".join(entry.text for entry in entries) == sim_text(7, 0, 50)
    assert len(worker.keeper.table) == 0


async def test_leaving_execute_cancels_it(start_worker: StartWorker) -> None:
    worker = await start_worker(FOREVER, slots=1)
    request = worker_service_pb2.ExecuteRequest(spec=run_spec(max_tokens=None))
    async with open_stream(worker.stub.Execute, request) as answers:
        await asyncio.wait_for(anext(answers), 5)
        assert worker.keeper.slots_free == 0
    async with asyncio.timeout(5), reading(worker) as reader:
        while (await reader.next_frame()).slots_free == 0:
            pass


async def test_a_private_run_is_not_shown_to_the_orchestrator(start_worker: StartWorker) -> None:
    worker = await start_worker(FOREVER)
    request = worker_service_pb2.ExecuteRequest(spec=run_spec(max_tokens=None))
    async with reading(worker) as reader, open_stream(worker.stub.Execute, request) as answers:
        await asyncio.wait_for(anext(answers), 5)
        for _ in range(3):
            assert list((await reader.next_frame()).deltas) == []


async def test_info_and_stats_tell_what_the_worker_is_and_does(start_worker: StartWorker) -> None:
    worker = await start_worker()
    info = await call(worker.stub.GetInfo, worker_service_pb2.GetInfoRequest(), timeout_s=5)
    assert (info.worker_id, info.engine.engine, info.engine.simulated, info.engine.slots) == ("w1", "sim", True, 4)
    await start_run(worker, "a")
    async with reading(worker) as reader:
        await reader.until_ended("a")
    stats = (await call(worker.stub.GetStats, worker_service_pb2.GetStatsRequest(), timeout_s=5)).stats
    assert (stats.slots_busy, stats.runs_kept, stats.tokens_generated) == (0, 1, 5)
    assert 0 < stats.rss_mib < 1000


async def test_shutdown_is_passed_on(start_worker: StartWorker) -> None:
    worker = await start_worker()
    await call(worker.stub.Shutdown, worker_service_pb2.ShutdownRequest(), timeout_s=5)
    assert worker.stop.is_set()


def without_seed(spec: run_pb2.RunSpec) -> None:
    spec.generate.sampling.ClearField("seed")


def with_image(spec: run_pb2.RunSpec) -> None:
    part = spec.generate.chat.messages.add(role="user").content.add()
    part.image.media_type = "image/png"


def with_tool(spec: run_pb2.RunSpec) -> None:
    spec.generate.chat.messages.add(role="user").content.add().text = "hi"
    spec.generate.chat.tools.add(name="f")


@pytest.mark.parametrize(
    ("change", "reason", "named"),
    [
        (without_seed, Reason.INVALID_FIELD, "sampling.seed"),
        (with_image, Reason.UNSUPPORTED_CONTENT, "image"),
        (lambda spec: spec.ClearField("work"), Reason.INVALID_FIELD, "spec.work"),
        (lambda spec: spec.embed.SetInParent(), Reason.INVALID_FIELD, "embed.inputs"),
        (lambda spec: spec.embed.inputs.extend(["x", ""]), Reason.INVALID_FIELD, "embed.inputs[1]"),
        (lambda spec: spec.embed.inputs.extend(["x"] * 257), Reason.INVALID_FIELD, "257"),
        (lambda spec: setattr(spec.rerank, "query", "x"), Reason.INVALID_FIELD, "rerank.documents"),
        (lambda spec: spec.generate.chat.messages.add(role="boss"), Reason.INVALID_FIELD, "messages[0].role"),
        (lambda spec: spec.generate.chat.SetInParent(), Reason.INVALID_FIELD, "chat.messages"),
        (lambda spec: spec.generate.ClearField("input"), Reason.INVALID_FIELD, "generate.prompt"),
        (lambda spec: setattr(spec.generate, "max_tokens", 0), Reason.INVALID_FIELD, "max_tokens"),
        (
            lambda spec: setattr(spec.generate.sampling, "temperature", float("nan")),
            Reason.INVALID_FIELD,
            "temperature",
        ),
        (lambda spec: setattr(spec.generate.sampling, "mirostat", 2), Reason.UNSUPPORTED_OPTION, "mirostat"),
        (lambda spec: setattr(spec.generate, "top_logprobs", 0), Reason.UNSUPPORTED_OPTION, "top_logprobs"),
        (lambda spec: setattr(spec.generate.output_constraint, "grammar", "x"), Reason.UNSUPPORTED_OPTION, "grammar"),
        (lambda spec: spec.adapters.append("x"), Reason.UNSUPPORTED_OPTION, "adapters"),
        (with_tool, Reason.UNSUPPORTED_OPTION, "tools"),
        (lambda spec: setattr(spec.generate, "prompt", "x" * 20_000), Reason.PROMPT_TOO_LONG, "4096"),
    ],
)
async def test_what_can_not_be_done_is_refused_by_name(
    start_worker: StartWorker, change: Any, reason: Reason, named: str
) -> None:
    worker = await start_worker()
    spec = run_spec()
    change(spec)
    with pytest.raises(InvalidArgument) as refused:
        await start_run(worker, "a", spec)
    assert refused.value.reason is reason
    assert named in refused.value.message
    assert len(worker.keeper.table) == 0


async def test_an_option_that_says_off_asks_for_nothing(start_worker: StartWorker) -> None:
    worker = await start_worker()
    spec = run_spec()
    spec.generate.sampling.frequency_penalty = 0
    spec.generate.sampling.repeat_penalty = 1
    await start_run(worker, "a", spec)


@pytest.mark.parametrize("attempt_id", ["", "a b", "x" * 129])
async def test_a_bad_attempt_id_is_refused(start_worker: StartWorker, attempt_id: str) -> None:
    worker = await start_worker()
    with pytest.raises(InvalidArgument, match="attempt_id"):
        await start_run(worker, attempt_id)


async def test_a_worker_that_was_started_by_hand_can_not_be_adopted(start_worker: StartWorker) -> None:
    worker = await start_worker()
    request = worker_service_pb2.AdoptRequest(ready_address="127.0.0.1:9200")
    with pytest.raises(FailedPrecondition, match="no pool manager"):
        await call(worker.stub.Adopt, request, timeout_s=5)


@pytest.mark.parametrize("address", ["", "nowhere", "127.0.0.1:99999"])
async def test_an_address_that_is_none_is_no_pool_manager(start_worker: StartWorker, address: str) -> None:
    worker = await start_worker()
    with pytest.raises(InvalidArgument):
        await call(worker.stub.Adopt, worker_service_pb2.AdoptRequest(ready_address=address), timeout_s=5)


@pytest.mark.req("POOL-2004")
async def test_runs_that_wait_for_steps_are_told_apart_from_those_that_ended(start_worker: StartWorker) -> None:
    worker = await start_worker(FOREVER)
    await start_run(worker, "a", run_spec(max_tokens=None))
    stats = await call(worker.stub.GetStats, worker_service_pb2.GetStatsRequest(), timeout_s=5)
    assert stats.stats.runs_decoding == 1
    await cancel_run(worker, "a")
    async with asyncio.timeout(5):
        while (await call(worker.stub.GetStats, worker_service_pb2.GetStatsRequest(), timeout_s=5)).stats.runs_decoding:
            await asyncio.sleep(0.01)


def count_question(prompt: str) -> worker_service_pb2.ReadTokensRequest:
    return worker_service_pb2.ReadTokensRequest(question=tokens_pb2.TokenQuestion(prompt=run_spec(prompt)))


async def test_tokens_are_told_while_every_slot_is_taken(start_worker: StartWorker) -> None:
    worker = await start_worker(FOREVER, slots=1)
    await start_run(worker, "a", run_spec(max_tokens=None))
    told = await call(worker.stub.ReadTokens, count_question("x" * 41), timeout_s=5)
    assert told.answer.count == 11
    assert worker.keeper.slots_free == 0
    with pytest.raises(InvalidArgument, match="question"):
        await call(worker.stub.ReadTokens, worker_service_pb2.ReadTokensRequest(), timeout_s=5)


async def test_a_worker_that_loads_tells_no_tokens() -> None:
    loading = WorkerServicer("w1", asyncio.Event())
    with pytest.raises(Unavailable) as refused:
        await loading.ReadTokens(count_question("x"), None)  # type: ignore[arg-type]  # it is not looked at
    assert refused.value.reason is Reason.WORKER_NOT_READY
