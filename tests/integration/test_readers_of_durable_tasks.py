"""Readers of durable tasks while the orchestrator ends and the next one takes its place."""

import asyncio
import os
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from llama_orch.v2 import node_pb2, task_event_pb2, task_service_pb2
from llorch import AsyncClient
from llorch.errors import Reason, Unavailable
from llorch.rpc.client import call, open_stream
from support.event_source import EventSource, GaveUp
from support.streams import check_sse
from support.whole_system import CALL_S, SILENT_S, WholeSystem, task, wait_until, whole_system
from worker_orcd.engines.sim.tokens import sim_text

TOKENS = 400
WITHIN_S = 30.0


async def submitted(system: WholeSystem, max_tokens: int = TOKENS) -> str:
    task_id = await system.submit(task(max_tokens=max_tokens))

    async def has_output() -> bool:
        return bool((await system.task(task_id)).log_entries)

    await wait_until(has_output)
    return task_id


async def page(source: EventSource, shown: list[dict[str, Any]]) -> None:
    """What a page does: it shows the pieces, begins anew when told, and is done at the end of the task."""
    async for event in source.events():
        if event["type"] == "reset":
            shown.clear()
        shown.append(event)
        if event["type"] in ("end", "error"):
            return


def text_of(shown: list[dict[str, Any]]) -> str:
    return "".join(event["t"] for event in shown if event["type"] == "token")


@pytest.mark.req("GATE-4002", "ORCH-1009")
async def test_an_event_source_reads_on_by_itself_until_the_next_orchestrator_has_done_the_task(tmp_path: Path) -> None:
    async with whole_system(tmp_path, reattach_s=0) as system:
        assert system.lives is not None
        task_id = await submitted(system)
        source = EventSource(system.http, f"/v2/tasks/{task_id}/events")
        shown: list[dict[str, Any]] = []
        reading = asyncio.create_task(page(source, shown))
        await wait_until(lambda: _true_when(any(event["type"] == "token" for event in shown)))
        await system.lives.end()
        asked = source.asked
        await wait_until(lambda: _true_when(source.asked > asked + 1))  # it comes back while none is there
        assert not reading.done()
        await system.lives.begin(system.address)
        async with asyncio.timeout(WITHIN_S):
            await reading
    assert "reset" not in {event["type"] for event in shown}
    assert (shown[-1]["type"], shown[-1]["tokens_out"]) == ("end", TOKENS)
    assert text_of(shown) == sim_text(7, 0, TOKENS)
    assert any("DRAINING" in comment for comment in source.comments)
    assert any("UPSTREAM_UNAVAILABLE" in comment for comment in source.comments)


async def test_an_event_source_notices_nothing_of_the_next_orchestrator_if_it_is_there_in_time(tmp_path: Path) -> None:
    async with whole_system(tmp_path) as system:
        assert system.lives is not None
        task_id = await submitted(system)
        source = EventSource(system.http, f"/v2/tasks/{task_id}/events")
        shown: list[dict[str, Any]] = []
        reading = asyncio.create_task(page(source, shown))
        await wait_until(lambda: _true_when(any(event["type"] == "token" for event in shown)))
        await system.lives.begin_next(system.address)
        async with asyncio.timeout(WITHIN_S):
            await reading
    assert source.asked == 1
    assert check_sse(shown) == sim_text(7, 0, TOKENS)


@pytest.mark.parametrize("runs", [True, False], ids=["runs", "waits"])
async def test_a_call_goes_on_for_a_reader_that_comes_back_to_the_next_orchestrator(tmp_path: Path, runs: bool) -> None:
    """A task of Generate, which a second reader follows by its id. One that no worker has begun is lost."""
    async with whole_system(tmp_path, reattach_s=0) as system:
        assert system.lives is not None
        events: list[task_event_pb2.TaskEvent] = []
        generating = asyncio.create_task(system.generate(task(max_tokens=TOKENS), into=events))
        await wait_until(
            lambda: _true_when(any(event.HasField("tokens") for event in events) if runs else bool(events))
        )
        source = EventSource(system.http, f"/v2/tasks/{events[0].task_id}/events")
        shown: list[dict[str, Any]] = []
        reading = asyncio.create_task(page(source, shown))
        await wait_until(lambda: _true_when(bool(shown)))
        await system.lives.begin_next(system.address)
        with pytest.raises(Unavailable) as lost:
            await generating
        assert lost.value.retry_after_ms
        with nullcontext() if runs else pytest.raises(GaveUp, match="404"):
            async with asyncio.timeout(WITHIN_S):
                await reading
    assert "error" not in {event["type"] for event in shown}
    assert text_of(shown) == (sim_text(7, 0, TOKENS) if runs else "")


async def read(system: WholeSystem, task_id: str, events: list[task_event_pb2.TaskEvent]) -> None:
    request = task_service_pb2.StreamTaskRequest(task_id=task_id)
    async with open_stream(system.tasks.StreamTask, request, idle_timeout_s=SILENT_S) as answers:
        async for answer in answers:
            events.append(answer.event)  # noqa: PERF401  what came before an error is looked at, too


async def test_a_grpc_reader_is_told_to_come_back_and_when(tmp_path: Path) -> None:
    async with whole_system(tmp_path) as system:
        assert system.lives is not None
        task_id = await submitted(system)
        events: list[task_event_pb2.TaskEvent] = []
        reading = asyncio.create_task(read(system, task_id, events))
        await wait_until(lambda: _true_when(bool(events)))
        await system.lives.end()
        with pytest.raises(Unavailable) as told:
            await reading
        assert (told.value.reason, told.value.retry_after_ms) == (Reason.DRAINING, 1000)
        assert not any(event.HasField("error") or event.HasField("end") for event in events)


async def test_a_task_whose_worker_ends_together_with_the_orchestrator_is_done_by_the_next_one(tmp_path: Path) -> None:
    """As where one signal ends all daemons of a machine."""
    async with whole_system(tmp_path) as system:
        assert system.lives is not None
        system.lives.drain_s = 4.0
        await system.lives.begin_next(system.address)
        await wait_until(lambda: _has_node(system))
        task_id = await submitted(system, max_tokens=2000)
        (worker,) = (await system.state()).workers
        events: list[task_event_pb2.TaskEvent] = []
        reading = asyncio.create_task(read(system, task_id, events))
        await wait_until(lambda: _true_when(bool(events)))
        ending = asyncio.create_task(system.lives.end())
        await wait_until(lambda: _drains(system))
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(Unavailable) as told:
            await reading
        assert told.value.reason is Reason.DRAINING
        await ending
        assert not any(event.HasField("error") or event.HasField("end") for event in events)
        await system.lives.begin(system.address)
        await wait_until(lambda: _has_node(system))
        async with asyncio.timeout(WITHIN_S):
            events = await system.stream(task_id)
        assert events[-1].end.tokens_out == 2000


async def test_an_answer_of_the_sdk_starts_over_with_the_task(tmp_path: Path) -> None:
    async with whole_system(tmp_path) as system, AsyncClient(system.address) as client:
        assert system.lives is not None
        task_id = await submitted(system)
        stream = client.stream(task_id)
        answering = asyncio.create_task(stream.answer())
        await wait_until(lambda: _true_when(bool(stream.cursor)))
        await system.lives.begin_next(system.address)
        async with asyncio.timeout(WITHIN_S):
            assert (await answering).text == sim_text(7, 0, TOKENS)


async def test_an_answer_of_generate_outlives_the_orchestrator(tmp_path: Path) -> None:
    """Nothing of it was given out, so that it does not matter whether it is the same task."""
    async with whole_system(tmp_path) as system, AsyncClient(system.address) as client:
        assert system.lives is not None
        stream = client.generate("sim", "hello", max_tokens=TOKENS, seed=7)
        answering = asyncio.create_task(stream.answer())
        await wait_until(lambda: _true_when(bool(stream.task_id)))
        await system.lives.begin_next(system.address)
        async with asyncio.timeout(WITHIN_S):
            assert (await answering).text == sim_text(7, 0, TOKENS)


async def test_an_answer_of_the_gateway_outlives_the_orchestrator(tmp_path: Path) -> None:
    """As do 16 of them at once; the task of each is in its model's queue, or runs."""
    body = {"model": "sim", "messages": [{"role": "user", "content": "hello"}], "max_tokens": TOKENS, "seed": 7}
    async with whole_system(tmp_path) as system:
        assert system.lives is not None
        asking = [asyncio.create_task(system.http.post("/v1/chat/completions", json=body)) for _ in range(16)]

        async def all_wait_or_run() -> bool:
            request = task_service_pb2.ListTasksRequest()
            return len((await call(system.tasks.ListTasks, request, timeout_s=CALL_S)).tasks) == len(asking)

        await wait_until(all_wait_or_run)
        await system.lives.begin_next(system.address)
        async with asyncio.timeout(WITHIN_S):
            answers = [answer.json()["choices"][0]["message"]["content"] for answer in await asyncio.gather(*asking)]
    assert answers == [sim_text(7, 0, TOKENS)] * len(asking)


async def _true_when(holds: bool) -> bool:
    return holds


async def _has_node(system: WholeSystem) -> bool:
    return any(node.state == node_pb2.NODE_STATE_READY for node in (await system.state()).nodes)


async def _drains(system: WholeSystem) -> bool:
    try:
        await system.state()
    except Unavailable:
        return True
    return False
