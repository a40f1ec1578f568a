"""A connection whose line is dead, so that neither side is told: its calls end by the pings that get no answer."""

import asyncio
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from llorch.errors import Reason, Unavailable
from llorch.rpc import transport_options
from llorch.rpc.client import open_channel, open_stream
from support.cuttable_line import cuttable
from support.scripted_service import Methods, Script, serving

REQUEST = StringValue(value="x")


async def test_calls_on_a_dead_line_end_on_both_sides(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_options, "_PING_EVERY_MS", 300)
    monkeypatch.setattr(transport_options, "_PING_ANSWER_WITHIN_MS", 300)
    monkeypatch.setattr(transport_options, "_SHORTEST_PING_INTERVAL_MS", 100)
    handler_ended = asyncio.Event()

    async def write_once(_request: Any, context: Any) -> None:
        try:
            await context.write(REQUEST)
            await asyncio.Event().wait()
        finally:
            handler_ended.set()

    script.stream = write_once
    async with (
        asyncio.timeout(30),
        serving(script) as served,
        cuttable(served.address) as line,
        open_channel(line.address) as channel,
        open_stream(Methods(channel).stream, REQUEST) as answers,
    ):
        await anext(aiter(answers))
        line.hold()
        with pytest.raises(Unavailable) as ended:
            await anext(aiter(answers))
        assert ended.value.reason is Reason.UPSTREAM_UNAVAILABLE
        await handler_ended.wait()


async def test_a_silent_stream_outlives_many_pings(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default a server ends connections for them: a silent prefill would be the end of its stream."""
    monkeypatch.setattr(transport_options, "_PING_EVERY_MS", 100)
    monkeypatch.setattr(transport_options, "_SHORTEST_PING_INTERVAL_MS", 50)

    async def write_late(_request: Any, context: Any) -> None:
        await context.write(REQUEST)
        await asyncio.sleep(1.5)
        await context.write(REQUEST)

    script.stream = write_late
    async with (
        asyncio.timeout(30),
        serving(script) as served,
        open_channel(served.address) as channel,
        open_stream(Methods(channel).stream, REQUEST) as answers,
    ):
        assert len([answer async for answer in answers]) == 2
