"""The events of many tasks over one call: who may read what, and what becomes of tasks whose readers leave."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gatewayd import task_events
from gatewayd.delivery import Delivery
from gatewayd.task_events import TaskEvents
from llama_orch.v2 import app_pb2, app_service_pb2, app_service_pb2_grpc, task_event_pb2, task_pb2, task_service_pb2
from llama_orch.v2 import delivery_service_pb2 as pb2
from llama_orch.v2.delivery_service_pb2_grpc import DeliveryServiceStub
from llorch.errors import (
    InvalidArgument,
    LlorchError,
    NotFound,
    PermissionDenied,
    Reason,
    ResourceExhausted,
    Unavailable,
)
from llorch.rpc.client import DuplexCall, call, open_channel
from orchestratord.core.lives import task_life
from orchestratord.runtime import deliveries
from orchestratord.runtime import delivery as orchestratord_delivery
from orchestratord.runtime.delivery import AHEAD_BYTES
from orchestratord.runtime.task_reader import AttachedReader
from support.streams import check_stream
from support.whole_system import CALL_S, WholeSystem, task, wait_until, whole_system
from worker_orcd.engines.sim.tokens import sim_text


@asynccontextmanager
async def delivery(system: WholeSystem) -> AsyncIterator[Delivery]:
    """One that is open, as a gateway has it."""
    made = Delivery()

    async def hear(events: DuplexCall[pb2.DeliverRequest, pb2.DeliverResponse]) -> None:
        try:
            async for response in events:
                made.hand_out(response)
        except LlorchError as error:
            made.end(error)

    async def tell(events: DuplexCall[pb2.DeliverRequest, pb2.DeliverResponse]) -> None:
        while (request := await made.to_tell()) is not None:
            await events.send(request)
        await events.close()

    async with DuplexCall(DeliveryServiceStub(system.channel).Deliver) as events:
        tasks = [asyncio.create_task(hear(events)), asyncio.create_task(tell(events))]
        try:
            await made.enter()
            yield made
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.wait(tasks)


async def attach(
    system: WholeSystem,
    made: Delivery,
    *,
    generate: task_pb2.TaskSpec | None = None,
    follow: str = "",
    after: str = "",
) -> tuple[int, TaskEvents]:
    number, reader = await made.enter()
    request = pb2.AttachReaderRequest(delivery_id=made.delivery_id, reader=number, generate=generate)
    if follow:
        request.follow.task_id, request.follow.after = follow, after
    await call(DeliveryServiceStub(system.channel).AttachReader, request, timeout_s=CALL_S)
    return number, reader


async def events_of(reader: TaskEvents) -> list[task_event_pb2.TaskEvent]:
    async with asyncio.timeout(10):
        return [response.event async for response in reader]


async def task_ids(system: WholeSystem) -> list[str]:
    answer = await call(system.tasks.ListTasks, task_service_pb2.ListTasksRequest(), timeout_s=CALL_S)
    return [each.task_id for each in answer.tasks]


async def until_cancelled(system: WholeSystem, task_id: str) -> None:
    async def is_cancelled() -> bool:
        return (await system.task(task_id)).state == task_pb2.TASK_STATE_CANCELLED

    await wait_until(is_cancelled, timeout_s=4)


async def test_many_tasks_come_whole_over_one_delivery(system: WholeSystem) -> None:
    async with delivery(system) as made:
        readers = [(await attach(system, made, generate=task(max_tokens=40)))[1] for _ in range(12)]
        texts = {check_stream(events) for events in await asyncio.gather(*map(events_of, readers))}
    assert texts == {sim_text(7, 0, 40)}


@pytest.mark.req("ORCH-1005")
async def test_a_reader_goes_on_after_its_cursor(system: WholeSystem) -> None:
    task_id = await system.submit(task(max_tokens=12))
    seen = next(event for event in await system.stream(task_id) if event.HasField("tokens"))
    async with delivery(system) as made:
        _, reader = await attach(system, made, follow=task_id, after=seen.cursor)
        events = await events_of(reader)
    index = seen.tokens.index + seen.tokens.count
    assert sim_text(7, 0, index) + check_stream(events, first_index=index) == sim_text(7, 0, 12)


@pytest.mark.req("ORCH-1007")
async def test_a_task_without_its_reader_is_cancelled_and_one_that_is_followed_goes_on(system: WholeSystem) -> None:
    durable = await system.submit(task(max_tokens=4000))
    async with delivery(system) as made:
        number, reader = await attach(system, made, generate=task(max_tokens=4000))
        followed, _ = await attach(system, made, follow=durable)
        abandoned = (await anext(reader)).event.task_id
        for each in (number, followed):
            made.leave(each)
        await until_cancelled(system, abandoned)
    assert (await system.task(durable)).state == task_pb2.TASK_STATE_RUNNING


async def test_all_readers_leave_with_their_delivery(system: WholeSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """It broke off, so they may return for a while."""
    monkeypatch.setattr(task_life, "LINE_IS_BACK_WITHIN_S", 0.5)
    async with delivery(system) as made:
        readers = [(await attach(system, made, generate=task(max_tokens=4000)))[1] for _ in range(2)]
        abandoned = [(await anext(reader)).event.task_id for reader in readers]
    for task_id in abandoned:
        await until_cancelled(system, task_id)


async def test_what_is_refused_makes_no_task(system: WholeSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    attach_reader = DeliveryServiceStub(system.channel).AttachReader
    async with delivery(system) as made:
        number, _ = await attach(system, made, generate=task(max_tokens=4000))
        for kind, said, delivery_id, reader, reads in (
            (InvalidArgument, "set generate or follow", made.delivery_id, number + 1, {}),
            (InvalidArgument, "is attached already", made.delivery_id, number, {"generate": task()}),
            (InvalidArgument, "task_id", made.delivery_id, number + 1, {"follow": pb2.FollowedTask()}),
            (NotFound, "t-1", made.delivery_id, number + 1, {"follow": pb2.FollowedTask(task_id="t-1")}),
            (Unavailable, "no such delivery", "d-1", number + 1, {"generate": task()}),
        ):
            request = pb2.AttachReaderRequest(delivery_id=delivery_id, reader=reader, **reads)
            with pytest.raises(kind, match=said):
                await call(attach_reader, request, timeout_s=CALL_S)
        monkeypatch.setattr(task_life, "MOST_READERS", 1)
        with pytest.raises(ResourceExhausted) as full:
            await attach(system, made, generate=task())
        assert full.value.reason is Reason.TOO_MANY_CALLS
        assert len(await task_ids(system)) == 1


async def test_one_request_tells_of_so_many_readers(system: WholeSystem) -> None:
    for said in (pb2.DeliverRequest(left=range(5000)), pb2.DeliverRequest(taken=[pb2.Taken(reader=1)] * 5000)):
        async with DuplexCall(DeliveryServiceStub(system.channel).Deliver) as events:
            await events.send(said)
            with pytest.raises(InvalidArgument, match="5000 entries"):
                async for _ in events:
                    pass


async def test_readers_act_as_their_client_and_a_client_opens_no_delivery(system: WholeSystem) -> None:
    apps = app_service_pb2_grpc.AppServiceStub(system.channel)
    create = app_service_pb2.CreateAppRequest(app=app_pb2.App(app="aider", models={"gpt-4o": "sim"}))
    key = (await call(apps.CreateApp, create, timeout_s=CALL_S)).key
    foreign = await system.submit(task())
    channel = open_channel(system.address, token=key)
    try:
        aider = WholeSystem(system.address, system.http, channel, system.folder, system.lives)
        async with delivery(system) as made:
            _, reader = await attach(aider, made, generate=task(model="gpt-4o"))
            events = await events_of(reader)
            assert (await system.task(events[0].task_id)).app == "aider"
            with pytest.raises(NotFound):
                await attach(aider, made, follow=foreign)
        with pytest.raises(PermissionDenied) as refused:
            async with delivery(aider):
                pass
        assert refused.value.reason is Reason.NOT_PERMITTED
    finally:
        await channel.close()


async def test_a_reader_that_takes_nothing_holds_up_no_other_one(system: WholeSystem) -> None:
    async with delivery(system) as made:
        _, stuck = await attach(system, made, generate=task(max_tokens=1200))
        _, reader = await attach(system, made, generate=task(max_tokens=1200))
        assert check_stream(await events_of(reader)) == sim_text(7, 0, 1200)
        assert sum(map(len, stuck._waiting)) < AHEAD_BYTES + 1000
        assert check_stream(await events_of(stuck)) == sim_text(7, 0, 1200), "nothing of it was lost"


async def test_an_orchestrator_that_ends_waits_for_readers_and_not_for_a_delivery_without_one(
    system: WholeSystem,
) -> None:
    lives = system.lives
    assert lives is not None
    lives.drain_s = 5
    await lives.begin_next(system.address)
    async with delivery(system) as made:
        began = time.monotonic()
        await lives.begin_next(system.address)
        assert time.monotonic() - began < 3
        with pytest.raises(Unavailable):
            await attach(system, made, generate=task())


async def test_readers_of_an_orchestrator_that_ends_are_told_so(system: WholeSystem) -> None:
    assert system.lives is not None
    async with delivery(system) as made:
        _, reader = await attach(system, made, generate=task(max_tokens=4000))
        await anext(reader)
        await system.lives.end()
        with pytest.raises(Unavailable) as ended:
            await events_of(reader)
        assert ended.value.reason is Reason.DRAINING


async def test_clients_of_http_share_one_delivery_and_its_frames(
    system: WholeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, frames = 0, 0
    open_delivery, next_frame = deliveries.Deliveries.open, orchestratord_delivery.Delivery.next_frame

    def count_opened(self: deliveries.Deliveries, wake: Callable[[], None]) -> Any:
        nonlocal opened
        opened += 1
        return open_delivery(self, wake)

    def count_frames(self: orchestratord_delivery.Delivery, now: float) -> pb2.DeliverResponse | None:
        nonlocal frames
        frame = next_frame(self, now)
        frames += frame is not None
        return frame

    monkeypatch.setattr(deliveries.Deliveries, "open", count_opened)
    monkeypatch.setattr(orchestratord_delivery.Delivery, "next_frame", count_frames)
    body = {"model": "sim", "generate": {"prompt": "hello", "max_tokens": 200}}
    answers = await asyncio.gather(*(system.http.post("/v2/generate", json=body) for _ in range(4)))
    events = sum(answer.text.count("event: token") for answer in answers)
    assert opened == 1
    assert 0 < frames < 0.6 * events, f"{events} events of four streams came in {frames} frames"


async def test_what_a_gateway_says_to_an_orchestrator_that_ends_costs_it_nothing(
    system: WholeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library gives no message that is there once a write to the call has failed."""
    lives = system.lives
    assert lives is not None
    lives.drain_s = 5
    await lives.begin_next(system.address)
    await system.generate(task(max_tokens=1))  # the node is back
    opened: list[orchestratord_delivery.Delivery] = []
    attach_here = orchestratord_delivery.Delivery.attach

    def attach_and_keep(self: orchestratord_delivery.Delivery, number: int, attached: AttachedReader) -> None:
        opened.append(self)
        attach_here(self, number, attached)

    monkeypatch.setattr(orchestratord_delivery.Delivery, "attach", attach_and_keep)
    async with DuplexCall(DeliveryServiceStub(system.channel).Deliver) as events:
        delivery_id = (await anext(aiter(events))).delivery_id
        request = pb2.AttachReaderRequest(delivery_id=delivery_id, reader=1, generate=task(max_tokens=60))
        await call(DeliveryServiceStub(system.channel).AttachReader, request, timeout_s=CALL_S)
        ending = asyncio.create_task(lives.end())
        await wait_until(lambda: _is_empty(opened[0]))
        for _ in range(3):
            await events.send(pb2.DeliverRequest(taken=[pb2.Taken(reader=1, bytes=100)]))
        brought: list[pb2.Delivered] = []
        ends = False
        while not ends:
            response = await anext(aiter(events))
            brought += response.delivered
            ends = response.ends
        await events.close()
        assert [each async for each in events] == []
        await ending
    shown = [task_event_pb2.TaskEvent.FromString(each.event) for each in brought]
    assert check_stream(shown) == sim_text(7, 0, 60)
    assert brought[-1].is_last


async def _is_empty(delivery: orchestratord_delivery.Delivery) -> bool:
    return len(delivery) == 0


async def test_all_clients_are_told_that_the_orchestrator_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the gateway tells it of each event that was taken, until the call is over."""
    monkeypatch.setattr(task_events, "_TOLD_EVERY_BYTES", 1)
    async with whole_system(tmp_path, reattach_s=0) as system:
        assert ["DRAINING" in text for text in await _read_to_the_end(system)] == [True] * 8


async def _read_to_the_end(system: WholeSystem) -> list[str]:
    """Of the orchestrator: what eight clients get whose streams it cuts."""
    assert system.lives is not None
    body = {"model": "sim", "generate": {"prompt": "hello", "max_tokens": 4000}}
    started = 0

    async def read() -> str:
        nonlocal started
        text = ""
        async with system.http.stream("POST", "/v2/generate", json=body) as answer:
            async for chunk in answer.aiter_text():
                started += not text
                text += chunk
        return text

    reading = [asyncio.create_task(read()) for _ in range(8)]

    async def all_have_begun() -> bool:
        return started == len(reading)

    await wait_until(all_have_begun)
    await system.lives.end()
    return await asyncio.gather(*reading)


async def test_a_gateway_has_another_delivery_once_the_orchestrator_is_back(system: WholeSystem) -> None:
    assert system.lives is not None
    body = {"model": "sim", "generate": {"prompt": "hello", "max_tokens": 3}}
    assert (await system.http.post("/v2/generate", json=body)).text.count("event: end") == 1
    await system.lives.begin_next(system.address)

    async def is_served() -> bool:
        return "event: end" in (await system.http.post("/v2/generate", json=body)).text

    await wait_until(is_served)
