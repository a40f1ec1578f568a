"""A delivery that goes wrong costs its readers their streams, and the gateway nothing."""

import asyncio
import time

from .conftest import RunningGateway
from .fake_orchestrator import FakeOrchestrator
from .test_event_streams import END, EVENTS, STARTED, token


async def test_what_is_no_message_ends_the_readers_and_not_the_gateway(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    orchestrator.stream("StreamTask", STARTED, token(0, "a"), END)
    orchestrator.deliveries.says = b"\xff\xff\xff"
    refused = await gateway.client.get(EVENTS)
    assert refused.status_code >= 500
    answer = await gateway.client.get(EVENTS)
    assert (answer.status_code, answer.text.count("event: end")) == (200, 1)


async def test_a_gateway_that_ends_does_not_wait_for_an_orchestrator_that_does_not_answer(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    orchestrator.deliveries.answers.clear()
    asking = asyncio.create_task(gateway.client.get(EVENTS))
    async with asyncio.timeout(5):
        while not orchestrator.deliveries.asked:
            await asyncio.sleep(0.01)
    stopped_at = time.monotonic()
    gateway.stop.set()
    answer = await asking
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "DRAINING")
    await gateway.task
    assert time.monotonic() - stopped_at < 1
