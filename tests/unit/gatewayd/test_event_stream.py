"""A stream that begins while the gateway ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self, cast

import pytest

from gatewayd.event_stream import EventStream
from gatewayd.exchange import Exchange
from llorch.errors import LlorchError, Reason, Unavailable


class Endless:
    """Responses that never come."""

    def __init__(self) -> None:
        self._end: asyncio.Future[LlorchError] = asyncio.get_running_loop().create_future()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        raise await self._end

    def end(self, error: LlorchError) -> None:
        self._end.set_result(error)


class NotStarted:
    """An exchange whose answer has not begun."""

    started = False

    def probe_with(self, data: bytes) -> None: ...


@asynccontextmanager
async def opened_at_once() -> AsyncIterator[Endless]:
    yield Endless()


@asynccontextmanager
async def never_opened() -> AsyncIterator[Endless]:
    await asyncio.Event().wait()
    yield Endless()


@pytest.mark.parametrize("stream", [opened_at_once, never_opened])
@pytest.mark.parametrize("drains_before", [True, False])
async def test_it_is_told_that_the_gateway_ends(stream: Any, drains_before: bool) -> None:
    draining = asyncio.Event()
    streams = EventStream(draining, collects_for_s=0)
    ending = asyncio.create_task(streams.end_when_draining())
    if drains_before:
        draining.set()
        await ending
    relaying = asyncio.create_task(streams.relay(cast("Exchange", NotStarted()), stream()))
    await asyncio.sleep(0)
    draining.set()
    with pytest.raises(Unavailable) as told:
        await asyncio.wait_for(relaying, 2)
    assert told.value.reason is Reason.DRAINING
    await ending
