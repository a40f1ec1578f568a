import asyncio

import pytest

from llama_orch.v2 import error_reason_pb2, task_event_pb2
from llorch import AsyncClient, End, Failed, Started, TaskFailed, Tokens, Unreachable
from llorch.errors import NotFound, Reason, ResourceExhausted
from llorch.rpc import transport_options
from llorch.sdk import caller
from llorch.sdk.events import FinishReason, Placed
from llorch.sdk.task_stream import TaskStream
from support.fake_orchestrator import TASK_ID, FakeOrchestrator, serving


async def texts(stream: TaskStream) -> str:
    return "".join([piece async for piece in stream.text()])


async def test_generate_yields_every_event_in_order(client: AsyncClient) -> None:
    events = [event async for event in client.generate("smollm2", "Name three colours.")]

    assert [type(event) for event in events] == [Started, Placed, Tokens, Tokens, Tokens, End]
    end = events[-1]
    assert isinstance(end, End)
    assert end.finish_reason is FinishReason.EOS
    assert end.tokens_per_second == pytest.approx(50.0)


async def test_placed_says_that_the_cpu_answers(client: AsyncClient) -> None:
    async for event in client.generate("smollm2", "Hi"):
        if isinstance(event, Placed):
            assert event.cpu
            assert event.devices[0].kind == "cpu"


async def test_text_yields_the_pieces_of_the_answer(client: AsyncClient) -> None:
    assert await texts(client.generate("smollm2", "Hi")) == "Red, green, blue."


async def test_submit_then_stream_gives_the_same_output(client: AsyncClient) -> None:
    task_id = await client.submit("smollm2", "Hi")

    assert await texts(client.stream(task_id)) == "Red, green, blue."


async def test_stream_after_a_cursor_gives_the_rest(client: AsyncClient) -> None:
    assert await texts(client.stream(TASK_ID, after="0.2")) == ", blue."


@pytest.mark.parametrize("breaks_after", [1, 2, 3, 4, 5])
async def test_a_broken_stream_goes_on_where_it_broke(
    client: AsyncClient, fake: FakeOrchestrator, breaks_after: int
) -> None:
    fake.stream_breaks_after = [breaks_after]

    events = [event async for event in client.generate("smollm2", "Hi")]

    assert [type(event) for event in events] == [Started, Placed, Tokens, Tokens, Tokens, End]
    assert "".join(event.text for event in events if isinstance(event, Tokens)) == "Red, green, blue."
    assert len(fake.tasks_seen) == 1


async def test_a_stream_survives_many_breaks_as_long_as_events_come(
    client: AsyncClient, fake: FakeOrchestrator
) -> None:
    fake.stream_breaks_after = [3, 3, 3]

    assert await texts(client.generate("smollm2", "Hi")) == "Red, green, blue."


async def test_a_stream_that_stays_broken_raises_when_the_time_is_over(address: str, fake: FakeOrchestrator) -> None:
    fake.stream_breaks_after = [3, *[0] * 100]

    async with AsyncClient(address, reconnect_for_s=0.2) as client:
        with pytest.raises(Unreachable):
            await texts(client.generate("smollm2", "Hi"))


async def test_a_call_that_breaks_before_the_task_is_known_is_repeated_as_the_same_request(
    client: AsyncClient, fake: FakeOrchestrator
) -> None:
    fake.stream_breaks_after = [0, 0]

    assert await texts(client.generate("smollm2", "Hi")) == "Red, green, blue."
    assert len(fake.tasks_seen) == 3
    assert {task.request_id for task in fake.tasks_seen} == {fake.tasks_seen[0].request_id}
    await texts(client.generate("smollm2", "Hi"))
    assert fake.tasks_seen[3].request_id not in ("", fake.tasks_seen[0].request_id)
    await texts(client.generate("smollm2", "Hi", request_id="mine"))
    assert fake.tasks_seen[4].request_id == "mine"


async def test_a_refusal_is_raised_with_its_reason(client: AsyncClient) -> None:
    with pytest.raises(NotFound, match='nearest name is "smollm2"') as refused:
        await texts(client.generate("smolm2", "Hi"))
    assert refused.value.reason is Reason.MODEL_NOT_FOUND


async def test_a_failed_task_is_an_event_and_for_text_an_error(client: AsyncClient, fake: FakeOrchestrator) -> None:
    fake.failure = task_event_pb2.Error(
        reason=error_reason_pb2.ERROR_REASON_WORKER_LOST, message="the worker is gone", retryable=True
    )

    last = [event async for event in client.generate("smollm2", "Hi")][-1]
    assert isinstance(last, Failed)
    assert last.reason is Reason.WORKER_LOST
    with pytest.raises(TaskFailed, match="the worker is gone") as failed:
        await texts(client.generate("smollm2", "Hi"))
    assert failed.value.retryable


async def test_leaving_a_stream_early_ends_its_call(client: AsyncClient, fake: FakeOrchestrator) -> None:
    fake.hang_before_end = True

    async with client.generate("smollm2", "Hi") as stream:
        async for event in stream:
            if isinstance(event, Tokens):
                break
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_streams_leave_room_for_other_calls_and_one_too_many_is_told_so(
    fake: FakeOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_options, "CALLS_PER_CONNECTION", 2)
    monkeypatch.setattr(caller, "CALLS_PER_CONNECTION", 2)
    monkeypatch.setattr(caller, "_MAX_CONNECTIONS", 2)
    fake.hang_before_end = True
    async with serving(fake) as address, AsyncClient(address, timeout_s=5) as client, asyncio.timeout(20):
        streams = [client.generate("smollm2", "Hi") for _ in range(4)]
        for stream in streams:
            assert isinstance(await anext(stream), Started)
        with pytest.raises(ResourceExhausted, match="this client has 4 streams open") as refused:
            await anext(client.stream(TASK_ID))
        assert refused.value.reason is Reason.TOO_MANY_CALLS
        assert await client.cancel(TASK_ID)
        await streams.pop().aclose()
        async with client.stream(TASK_ID) as another:
            assert isinstance(await anext(another), Started)
        for stream in streams:
            await stream.aclose()
