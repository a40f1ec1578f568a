"""The orchestrator is killed; what it had accepted is done all the same, and what people had set is still set."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from llama_orch.v2 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    model_pb2,
    task_event_pb2,
    task_pb2,
    task_service_pb2,
    task_service_pb2_grpc,
)
from llorch.errors import AlreadyExists, InvalidArgument, Reason
from llorch.rpc.client import call, open_channel, open_stream
from support.up import Up, running_up

RESTARTS = int(os.environ.get("LLORCH_TEST_RESTARTS", "1"))
CALL_S = 10.0
SILENT_S = 60.0
ARGUMENTS = ("--simulate-gpu", "RTX 3090:24GiB", "--sim", '{"decode_tokens_per_s": 100}')


@asynccontextmanager
async def life(folder: Path) -> AsyncIterator[tuple[Up, grpc.aio.Channel]]:
    async with running_up(folder, *ARGUMENTS) as up:
        channel = open_channel(await up.ready())
        try:
            yield up, channel
        finally:
            await channel.close()


async def kill(up: Up) -> None:
    up.family()["orchestratord"].send_signal(signal.SIGKILL)
    await up.end()


async def submit(channel: grpc.aio.Channel, request_id: str, max_tokens: int) -> str:
    work = task_pb2.GenerateWork(prompt="a story", max_tokens=max_tokens)
    spec = task_pb2.TaskSpec(model="own", generate=work, request_id=request_id)
    request = task_service_pb2.SubmitTaskRequest(task=spec)
    return (await call(task_service_pb2_grpc.TaskServiceStub(channel).SubmitTask, request, timeout_s=CALL_S)).task_id


async def read(channel: grpc.aio.Channel, task_id: str, after: str = "") -> list[task_event_pb2.TaskEvent]:
    request = task_service_pb2.StreamTaskRequest(task_id=task_id, after=after)
    stub = task_service_pb2_grpc.TaskServiceStub(channel)
    async with open_stream(stub.StreamTask, request, idle_timeout_s=SILENT_S) as answers:
        return [answer.event async for answer in answers]


def text_of(events: list[task_event_pb2.TaskEvent]) -> str:
    return "".join(event.tokens.text for event in events)


async def register(channel: grpc.aio.Channel) -> None:
    catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
    known = await call(catalog.GetModel, catalog_service_pb2.GetModelRequest(model="smollm2"), timeout_s=CALL_S)
    spec = model_pb2.ModelSpec(name="own", source=known.model.spec.source, slots=2)
    await call(catalog.RegisterModel, catalog_service_pb2.RegisterModelRequest(model=spec), timeout_s=CALL_S)


@pytest.mark.req("ORCH-1009")
async def test_accepted_tasks_survive_kill_9_of_the_orchestrator(tmp_path: Path) -> None:
    async with life(tmp_path) as (up, channel):
        await register(channel)
        done = await submit(channel, "done", max_tokens=8)
        first_reading = await read(channel, done)
        accepted = [await submit(channel, f"r{number}", max_tokens=200) for number in range(8)]
        await kill(up)
    for _ in range(RESTARTS - 1):
        async with life(tmp_path) as (up, _):
            await kill(up)
    async with life(tmp_path) as (_, channel):
        assert [await submit(channel, f"r{number}", max_tokens=200) for number in range(8)] == accepted
        with pytest.raises(AlreadyExists):
            await submit(channel, "r0", max_tokens=201)
        again = await read(channel, done)
        assert (text_of(again), again[-1].end) == (text_of(first_reading), first_reading[-1].end)
        with pytest.raises(InvalidArgument) as reset:
            await read(channel, accepted[0], after="1.3")
        assert reset.value.reason is Reason.STREAM_RESET
        for task_id in accepted:
            events = await read(channel, task_id)
            assert [event.WhichOneof("event") for event in events if event.HasField("end")] == ["end"]
            assert events[-1].end.tokens_out == 200
