"""The orchestrator is lost and comes back: the client goes on by itself."""

import asyncio
import time
from collections.abc import Callable

import pytest

from llama_orch.v2 import task_pb2
from llorch import AsyncClient, End, Placed, Started, Tokens, Unreachable
from llorch.errors import InvalidArgument, LlorchError, NotFound, Reason, Unavailable
from support.cuttable_line import cuttable
from support.fake_orchestrator import TASK_ID, FakeOrchestrator, serving

ANSWER = "Red, green, blue."


def recovering() -> Unavailable:
    return Unavailable(Reason.RECOVERING, "it looks for its tasks", retry_after_ms=10)


def gone() -> NotFound:
    return NotFound(Reason.TASK_NOT_FOUND, "no task has that id")


def reset() -> InvalidArgument:
    return InvalidArgument(Reason.STREAM_RESET, "it was started over")


@pytest.mark.parametrize("breaks_after", [1, 2, 3, 4, 5])
async def test_a_restart_that_looks_for_its_tasks_is_waited_out(
    client: AsyncClient, fake: FakeOrchestrator, breaks_after: int
) -> None:
    fake.stream_breaks_after = [breaks_after]
    fake.refusals["StreamTask"] = [recovering(), None, recovering()]
    events = [event async for event in client.generate("smollm2", "Hi")]
    assert [type(event) for event in events] == [Started, Placed, Tokens, Tokens, Tokens, End]
    assert "".join(event.text for event in events if isinstance(event, Tokens)) == ANSWER
    assert len(fake.asked_again) == 4
    assert len(set(fake.asked_again)) == 1


async def test_a_reader_is_told_when_its_stream_waits(client: AsyncClient, fake: FakeOrchestrator) -> None:
    fake.stream_breaks_after = [3]
    fake.refusals["StreamTask"] = [recovering(), recovering()]
    told: list[bool] = []
    stream = client.generate("smollm2", "Hi")
    stream.when_it_waits(told.append)
    assert (await stream.answer()).text == ANSWER
    assert told == [True, False]


async def test_a_reader_that_leaves_meanwhile_hears_that_it_waits_no_more(
    client: AsyncClient, fake: FakeOrchestrator
) -> None:
    fake.stream_breaks_after = [3]
    fake.refusals["StreamTask"] = [recovering()] * 1000
    told: list[bool] = []
    async with client.generate("smollm2", "Hi") as stream:
        stream.when_it_waits(told.append)
        reading = asyncio.create_task(stream.answer())
        async with asyncio.timeout(5):
            while told != [True]:
                await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.wait({reading})
    assert told == [True, False]


async def test_output_that_starts_over_is_an_error_only_for_what_was_given_out(
    client: AsyncClient, fake: FakeOrchestrator
) -> None:
    for breaks_after in (2, 4):
        fake.stream_breaks_after = [breaks_after]
        fake.refusals["StreamTask"] = [reset()]
        assert (await client.generate("smollm2", "Hi").answer()).text == ANSWER
    fake.stream_breaks_after = [2]
    fake.refusals["StreamTask"] = [reset()]
    assert "".join([piece async for piece in client.generate("smollm2", "Hi").text()]) == ANSWER
    fake.stream_breaks_after = [4]
    fake.refusals["StreamTask"] = [reset()]
    pieces = client.generate("smollm2", "Hi").text()
    assert [await anext(pieces), await anext(pieces)] == ["Red", ", green"]
    with pytest.raises(InvalidArgument) as raised:
        await anext(pieces)
    assert raised.value.reason is Reason.STREAM_RESET


async def test_a_task_that_was_lost_is_asked_for_again_unless_some_of_its_output_was_given_out(
    client: AsyncClient, fake: FakeOrchestrator
) -> None:
    fake.stream_breaks_after = [4]
    fake.refusals["StreamTask"] = [gone()]
    assert (await client.generate("smollm2", "Hi").answer()).text == ANSWER
    first, second = fake.tasks_seen
    assert first == second
    fake.stream_breaks_after = [2]
    fake.refusals["StreamTask"] = [gone()]
    events = [event async for event in client.generate("smollm2", "Hi")]
    assert [type(event) for event in events] == [Started, Placed, Placed, Tokens, Tokens, Tokens, End]
    fake.stream_breaks_after = [4]
    fake.refusals["StreamTask"] = [gone()]
    with pytest.raises(Unavailable, match="the orchestrator has ended meanwhile") as raised:
        _ = [piece async for piece in client.generate("smollm2", "Hi").text()]
    assert raised.value.reason is Reason.TASK_NOT_FOUND
    fake.stream_breaks_after = [4]
    fake.refusals["StreamTask"] = [None, gone()]
    with pytest.raises(NotFound):
        await client.stream(TASK_ID).answer()


async def test_a_submission_that_broke_is_repeated_as_the_same_request(
    client: AsyncClient, fake: FakeOrchestrator
) -> None:
    fake.refusals["SubmitTask"] = [None, recovering(), None]
    assert await client.submit("smollm2", "Hi") == TASK_ID
    assert len(fake.tasks_seen) == 4
    assert len({task.request_id for task in fake.tasks_seen}) == 1
    assert fake.tasks_seen[0].request_id


async def test_questions_and_cancels_are_repeated(client: AsyncClient, fake: FakeOrchestrator) -> None:
    fake.running = [task_pb2.Task(task_id=TASK_ID)]
    fake.refusals = {"GetTask": [None, recovering()], "CancelTask": [None]}
    assert (await client.task(TASK_ID)).task_id == TASK_ID
    assert await client.cancel(TASK_ID)
    assert fake.cancelled == [TASK_ID, TASK_ID]


@pytest.mark.parametrize("refusal", [gone, lambda: Unavailable(Reason.NO_DEVICE, "no GPU")])
async def test_a_refusal_is_not_repeated(
    client: AsyncClient, fake: FakeOrchestrator, refusal: Callable[[], LlorchError]
) -> None:
    fake.refusals = {"SubmitTask": [refusal()], "Generate": [refusal()]}
    for asking in (client.submit("smollm2", "Hi"), client.generate("smollm2", "Hi").answer()):
        with pytest.raises(LlorchError):
            await asking
    assert len(fake.tasks_seen) == 2


async def test_one_that_never_answered_is_told_at_once_and_one_that_did_is_waited_for(fake: FakeOrchestrator) -> None:
    async with serving(fake) as address, cuttable(address) as line:
        began = time.monotonic()
        async with AsyncClient("127.0.0.1:1") as stranger:
            for asking in (stranger.submit("m", "x"), stranger.generate("m", "x").answer(), stranger.models()):
                with pytest.raises(Unreachable):
                    await asking
        assert time.monotonic() - began < 2
        async with AsyncClient(line.address, reconnect_for_s=5) as client:
            await client.submit("smollm2", "Hi")
            line.hold()
            line.cut()
            asking_again = asyncio.create_task(client.submit("smollm2", "Hi"))
            streaming = asyncio.create_task(client.generate("smollm2", "Hi").answer())
            await asyncio.sleep(0)
            line.cut()
            line.release()
            assert await asking_again == TASK_ID
            assert (await streaming).text == ANSWER


async def test_the_error_is_raised_when_the_time_is_over(address: str, fake: FakeOrchestrator) -> None:
    fake.refusals = {"GetTask": [None] * 100, "SubmitTask": [None] * 100, "StreamTask": [recovering()] * 100}
    fake.stream_breaks_after = [3]
    async with AsyncClient(address, reconnect_for_s=0.3) as client:
        for asking in (client.task(TASK_ID), client.submit("smollm2", "Hi")):
            began = time.monotonic()
            with pytest.raises(Unreachable):
                await asking
            assert 0.3 <= time.monotonic() - began < 2
        with pytest.raises(Unavailable) as raised:
            await client.generate("smollm2", "Hi").answer()
        assert raised.value.reason is Reason.RECOVERING


async def test_an_orchestrator_that_begins_each_stream_and_breaks_it_is_given_up(
    address: str, fake: FakeOrchestrator
) -> None:
    fake.stream_breaks_after = [3, *[2] * 100]
    async with AsyncClient(address, reconnect_for_s=0.3) as client:
        with pytest.raises(Unreachable):
            await client.generate("smollm2", "Hi").answer()
