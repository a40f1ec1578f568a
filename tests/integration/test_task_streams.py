"""A task through all daemons: what readers see, whatever they do."""

import asyncio
import os
import signal

import pytest

from llama_orch.v2 import cancel_pb2, error_reason_pb2, task_event_pb2, task_pb2, task_service_pb2
from llorch.errors import AlreadyExists, NotFound, Reason
from llorch.rpc.client import call, open_stream
from support.streams import check_stream
from support.whole_system import CALL_S, CRASH, FAIL, SILENT_S, WholeSystem, task, wait_until
from worker_orcd.engines.sim.tokens import sim_text


@pytest.mark.req("ORCH-1004", "ORCH-1001")
async def test_generate_streams_exactly_what_the_engine_said(system: WholeSystem) -> None:
    events = await system.generate(task(max_tokens=20))
    assert check_stream(events) == sim_text(7, 0, 20)
    end = events[-1].end
    assert end.choices[0].finish_reason == task_event_pb2.FINISH_REASON_LENGTH
    assert end.tokens_out == 20
    assert 0 <= end.queue_ms <= end.first_token_ms


async def test_every_answer_says_where_it_ran_and_that_it_is_simulated(system: WholeSystem) -> None:
    events = await system.generate(task())
    placed = [event.placed for event in events if event.HasField("placed")]
    assert len(placed) == 1
    assert (placed[0].node_id, placed[0].devices[0].name, placed[0].simulated) == ("garage", "RTX 3090", True)


@pytest.mark.req("ORCH-1005")
async def test_a_reader_that_comes_back_with_any_cursor_gets_the_rest_and_nothing_twice(system: WholeSystem) -> None:
    task_id = await system.submit(task(max_tokens=12))
    events = await system.stream(task_id)
    text = check_stream(events)
    for seen in [event for event in events if event.HasField("tokens")]:
        rest = await system.stream(task_id, after=seen.cursor)
        index = seen.tokens.index + seen.tokens.count
        read_before = sim_text(7, 0, index)
        assert read_before + check_stream(rest, first_index=index) == text


@pytest.mark.req("ORCH-1005")
async def test_many_readers_see_the_same_output(system: WholeSystem) -> None:
    task_id = await system.submit(task(max_tokens=50))
    texts = {check_stream(events) for events in await asyncio.gather(*(system.stream(task_id) for _ in range(8)))}
    assert texts == {sim_text(7, 0, 50)}


async def test_several_choices_come_whole_and_each_with_its_end(system: WholeSystem) -> None:
    spec = task(max_tokens=10)
    spec.generate.n = 3
    events = await system.generate(spec)
    check_stream(events)
    texts = ["", "", ""]
    for event in events:
        if event.HasField("tokens"):
            texts[event.tokens.choice] += event.tokens.text
    assert texts == [sim_text(7, choice, 10) for choice in range(3)]
    assert [choice.tokens_out for choice in events[-1].end.choices] == [10, 10, 10]


@pytest.mark.req("ORCH-1006")
async def test_cancel_in_mid_stream_ends_it_at_once_and_frees_the_slot(system: WholeSystem) -> None:
    task_id = await system.submit(task(max_tokens=3000))
    request = task_service_pb2.StreamTaskRequest(task_id=task_id)
    events = []
    async with open_stream(system.tasks.StreamTask, request, idle_timeout_s=SILENT_S) as answers:
        async for answer in answers:
            events.append(answer.event)
            if answer.event.HasField("tokens") and answer.event.tokens.index == 0:
                outcome = await cancel(system, task_id)
                assert outcome == cancel_pb2.CANCEL_OUTCOME_CANCELLED
    check_stream(events)
    assert events[-1].end.choices[0].finish_reason == task_event_pb2.FINISH_REASON_CANCELLED
    assert await cancel(system, task_id) == cancel_pb2.CANCEL_OUTCOME_ALREADY_FINISHED
    assert await cancel(system, "task-unknown") == cancel_pb2.CANCEL_OUTCOME_UNKNOWN
    await wait_until(lambda: nothing_runs(system), timeout_s=2)


@pytest.mark.req("ORCH-1007")
async def test_a_generate_without_its_reader_is_cancelled_and_a_submitted_task_goes_on(system: WholeSystem) -> None:
    durable = await system.submit(task(max_tokens=3000))
    request = task_service_pb2.GenerateRequest(task=task(max_tokens=4000))
    async with open_stream(system.tasks.Generate, request) as answers:
        async for answer in answers:
            if answer.event.HasField("tokens"):
                abandoned = answer.event.task_id
                break

    async def is_cancelled() -> bool:
        return (await system.task(abandoned)).state == task_pb2.TASK_STATE_CANCELLED

    await wait_until(is_cancelled, timeout_s=4)
    assert (await system.task(durable)).state == task_pb2.TASK_STATE_RUNNING


@pytest.mark.req("ORCH-1010")
async def test_more_tasks_than_slots_are_served_in_turn(system: WholeSystem) -> None:
    answers = await asyncio.gather(*(system.generate(task(max_tokens=20)) for _ in range(12)))
    assert {check_stream(events) for events in answers} == {sim_text(7, 0, 20)}


@pytest.mark.req("ORCH-1008")
async def test_a_task_that_ends_its_workers_is_given_up_after_two_and_the_next_task_gets_a_new_one(
    system: WholeSystem,
) -> None:
    async with asyncio.timeout(20):
        events = await system.generate(task(prompt=CRASH, max_tokens=50))
    check_stream(events)
    assert events[-1].error.reason == error_reason_pb2.ERROR_REASON_QUARANTINED
    assert not events[-1].error.retryable
    placed = [event.placed for event in events if event.HasField("placed")]
    assert [(place.attempt, place.lost) for place in placed] == [
        (1, task_event_pb2.ATTEMPT_LOSS_UNSPECIFIED),
        (2, task_event_pb2.ATTEMPT_LOSS_EXIT),
    ]
    assert check_stream(await system.generate(task(max_tokens=5))) == sim_text(7, 0, 5)


@pytest.mark.req("ORCH-1008")
async def test_kill_9_of_the_worker_in_mid_stream_costs_no_stream_on_it_more_than_a_moment(
    system: WholeSystem,
) -> None:
    task_id = await system.submit(task(max_tokens=600))
    reading = [asyncio.create_task(system.stream(task_id)) for _ in range(3)]

    async def has_output() -> bool:
        return (await system.task(task_id)).log_entries > 0

    await wait_until(has_output)
    os.kill((await system.state()).workers[0].pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        for events in await asyncio.gather(*reading):
            assert check_stream(events) == sim_text(7, 0, 600)
            assert [event.placed.attempt for event in events if event.HasField("placed")] == [1, 2]
    told = await system.task(task_id)
    assert (told.attempts, list(told.losses)) == (2, [task_event_pb2.ATTEMPT_LOSS_EXIT])


@pytest.mark.req("ORCH-1024")
async def test_a_question_is_given_a_slot_of_batch_work_which_goes_on_in_its_stream(system: WholeSystem) -> None:
    """Batch work has all four slots of the worker."""
    batch = [await system.submit(task(max_tokens=1500, priority="batch")) for _ in range(4)]
    reading = [asyncio.create_task(system.stream(task_id)) for task_id in batch]

    async def all_have_output() -> bool:
        return all([(await system.task(task_id)).log_entries > 0 for task_id in batch])

    await wait_until(all_have_output)
    question = await system.generate(task(max_tokens=5))
    assert check_stream(question) == sim_text(7, 0, 5)
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*reading)
    assert question[-1].end.queue_ms < min(answer[-1].end.decode_time_ms for answer in answers)
    assert {check_stream(answer) for answer in answers} == {sim_text(7, 0, 1500)}
    attempts = [[event.placed.attempt for event in answer if event.HasField("placed")] for answer in answers]
    assert sorted(attempts) == [[1]] * (len(batch) - 1) + [[1, 2]]
    told = [await system.task(task_id) for task_id in batch]
    assert not any(it.losses for it in told), "nothing is lost"


async def test_a_run_that_fails_hurts_no_other_run(system: WholeSystem) -> None:
    failed, good = await asyncio.gather(
        system.generate(task(prompt=FAIL, max_tokens=50)), system.generate(task(max_tokens=50))
    )
    assert failed[-1].error.reason == error_reason_pb2.ERROR_REASON_ENGINE_FAILED
    assert check_stream(good) == sim_text(7, 0, 50)


async def test_a_repeated_request_id_is_the_same_task(system: WholeSystem) -> None:
    first = await system.submit(task(request_id="r1"))
    assert await system.submit(task(request_id="r1")) == first
    with pytest.raises(AlreadyExists) as refused:
        await system.submit(task(request_id="r1", max_tokens=9))
    assert refused.value.reason is Reason.REQUEST_ID_REUSED
    with pytest.raises(AlreadyExists):
        await system.generate(task(request_id="r1"))


async def test_a_stream_of_an_unknown_task_is_refused(system: WholeSystem) -> None:
    with pytest.raises(NotFound) as refused:
        await system.stream("task-unknown")
    assert refused.value.reason is Reason.TASK_NOT_FOUND


async def cancel(system: WholeSystem, task_id: str) -> int:
    request = task_service_pb2.CancelTaskRequest(task_id=task_id)
    return (await call(system.tasks.CancelTask, request, timeout_s=CALL_S)).outcome


async def nothing_runs(system: WholeSystem) -> bool:
    state = await system.state()
    return state.tasks_running == 0 and all(not worker.stats.slots_busy for worker in state.workers)
