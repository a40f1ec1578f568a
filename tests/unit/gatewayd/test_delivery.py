"""What readers get of a delivery, and what the orchestrator is told of them."""

import asyncio

import pytest

from gatewayd.delivery import Delivery
from gatewayd.task_events import TaskEvents
from llama_orch.v2 import delivery_service_pb2 as pb2
from llama_orch.v2 import task_event_pb2
from llorch.errors import LlorchError, Reason, Unavailable
from llorch.rpc.status import status_details


def event(text: str) -> bytes:
    return task_event_pb2.TaskEvent(tokens=task_event_pb2.Tokens(text=text)).SerializeToString()


def brought(reader: int, text: str = "", *, is_last: bool = False, failure: bytes = b"") -> pb2.DeliverResponse:
    said = pb2.Delivered(reader=reader, event=event(text) if text else b"", is_last=is_last, failure=failure)
    return pb2.DeliverResponse(delivered=[said])


def begun() -> Delivery:
    delivery = Delivery()
    delivery.hand_out(pb2.DeliverResponse(delivery_id="d1"))
    return delivery


async def texts(reader: TaskEvents) -> list[str]:
    return [response.event.tokens.text async for response in reader]


async def told(delivery: Delivery) -> pb2.DeliverRequest | None:
    """None where there is nothing to tell."""
    try:
        async with asyncio.timeout(0.01):
            return await delivery.to_tell()
    except TimeoutError:
        return None


async def test_each_reader_gets_its_own_events_in_order() -> None:
    delivery = begun()
    (first, one), (second, other) = await delivery.enter(), await delivery.enter()
    for response in (brought(first, "a"), brought(second, "x"), brought(first, "b", is_last=True)):
        delivery.hand_out(response)
    delivery.hand_out(brought(second, "y", is_last=True))
    assert (await texts(one), await texts(other)) == (["a", "b"], ["x", "y"])


async def test_a_reader_waits_for_what_comes_later() -> None:
    delivery = begun()
    number, reader = await delivery.enter()
    reading = asyncio.create_task(texts(reader))
    await asyncio.sleep(0)
    delivery.hand_out(brought(number, "a", is_last=True))
    assert await reading == ["a"]


async def test_a_failure_is_raised_after_what_came_before_it() -> None:
    delivery = begun()
    number, reader = await delivery.enter()
    delivery.hand_out(brought(number, "a"))
    slow = status_details(Unavailable(Reason.SLOW_READER, "too slow"))
    delivery.hand_out(brought(number, is_last=True, failure=slow))
    assert (await anext(reader)).event.tokens.text == "a"
    with pytest.raises(Unavailable) as raised:
        await anext(reader)
    assert raised.value.reason is Reason.SLOW_READER


async def test_readers_of_a_call_that_ends_each_get_an_error_of_their_own() -> None:
    delivery = begun()
    readers = [(await delivery.enter())[1] for _ in range(2)]
    cause = ConnectionError()
    ended = Unavailable(Reason.DRAINING, "it ends", retry_after_ms=1000)
    ended.__cause__ = cause
    delivery.end(ended)
    raised = [await failure_of(reader) for reader in readers]
    assert [(error.reason, error.message, error.retry_after_ms) for error in raised] == [
        (Reason.DRAINING, "it ends", 1000)
    ] * 2
    assert [error.__cause__ for error in raised] == [cause, cause], "it says whether the call broke on its way"
    assert raised[0] is not raised[1]


async def test_what_has_ended_before_does_not_end_again() -> None:
    delivery = begun()
    number, reader = await delivery.enter()
    delivery.hand_out(brought(number, "a", is_last=True))
    reader.end(Unavailable(Reason.DRAINING, "it ends"))
    assert await texts(reader) == ["a"]


async def test_what_comes_after_the_end_is_not_read() -> None:
    delivery = begun()
    number, reader = await delivery.enter()
    delivery.hand_out(brought(number, "a"))
    reader.end(Unavailable(Reason.DRAINING, "it ends"))
    delivery.hand_out(brought(number, "b"))
    assert (await anext(reader)).event.tokens.text == "a"
    assert (await failure_of(reader)).reason is Reason.DRAINING


async def test_nothing_is_told_to_an_orchestrator_that_ends() -> None:
    delivery = begun()
    number, _ = await delivery.enter()
    delivery.leave(number)
    delivery.hand_out(pb2.DeliverResponse(ends=True))
    assert delivery.is_ending
    assert await delivery.to_tell() is None


async def test_much_news_is_told_in_several_messages() -> None:
    delivery = begun()
    numbers = [(await delivery.enter())[0] for _ in range(5000)]
    for number in numbers:
        delivery.leave(number)
    first, second = await delivery.to_tell(), await delivery.to_tell()
    assert first is not None
    assert second is not None
    assert [*first.left, *second.left] == numbers
    assert len(first.left) == 4096
    assert await told(delivery) is None


async def test_one_that_comes_too_late_gets_what_ended_the_delivery() -> None:
    delivery = Delivery()
    entering = asyncio.create_task(delivery.enter())
    await asyncio.sleep(0)
    assert not entering.done()
    delivery.end(Unavailable(Reason.UPSTREAM_UNAVAILABLE, "gone"))
    with pytest.raises(Unavailable, match="gone"):
        await entering


async def test_the_orchestrator_is_told_who_left_unless_it_knows() -> None:
    delivery = begun()
    (first, _), (second, _) = await delivery.enter(), await delivery.enter()
    delivery.hand_out(brought(first, "a", is_last=True))
    delivery.leave(first)
    assert await told(delivery) is None
    delivery.leave(second)
    delivery.leave(second)
    assert await told(delivery) == pb2.DeliverRequest(left=[second])


async def test_a_reader_that_left_before_it_was_attached_leaves_again() -> None:
    delivery = begun()
    number, _ = await delivery.enter()
    delivery.leave(number)
    assert await told(delivery) == pb2.DeliverRequest(left=[number])
    delivery.hand_out(brought(number, "a"))
    assert await told(delivery) == pb2.DeliverRequest(left=[number])
    delivery.hand_out(brought(number, "b", is_last=True))
    assert await told(delivery) is None


async def test_what_readers_take_is_told_in_few_messages_and_nothing_of_it_is_lost() -> None:
    delivery = begun()
    number, reader = await delivery.enter()
    taken = sizes = messages = 0
    for _ in range(1000):
        delivery.hand_out(brought(number, "word"))
        sizes += len(event("word"))
        await anext(reader)
        if (request := await _now(delivery)) is not None:
            messages += 1
            taken += request.taken[0].bytes
            assert request.taken[0].reader == number
    assert sizes - 4096 < taken <= sizes
    assert messages < 10


async def _now(delivery: Delivery) -> pb2.DeliverRequest | None:
    telling = asyncio.ensure_future(delivery.to_tell())
    await asyncio.sleep(0)
    if telling.done():
        return telling.result()
    telling.cancel()
    return None


async def failure_of(reader: TaskEvents) -> LlorchError:
    with pytest.raises(LlorchError) as raised:
        await anext(reader)
    return raised.value
