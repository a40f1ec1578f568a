"""Streams of one call survive whatever happens between the gateway and the orchestrator."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable

import httpx
import pytest

from gatewayd import event_stream
from llama_orch.v2 import meta_service_pb2
from llama_orch.v2 import task_service_pb2 as tasks
from llorch.auth import new_app_key
from llorch.errors import InvalidArgument, LlorchError, NotFound, Reason, Unauthenticated, Unavailable
from support.cuttable_line import Line, cuttable
from support.streams import check_chunks, check_sse

from .conftest import RunningGateway, StartGateway
from .fake_orchestrator import FakeOrchestrator
from .scripted_task import TASK_ID, WORDS, ScriptedTask, Turn, log_of
from .sse_reader import SseReader

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TASK = {"model": "m", "generate": {"prompt": "hi"}}
TEXT = "".join(WORDS)
POSITIONS = range(len(log_of()) + 1)
EVENTS = f"/v2/tasks/{TASK_ID}/events"

Read = Callable[[httpx.AsyncClient], Awaitable[str]]

both_ways = pytest.mark.parametrize("orchestrator", [True, False], ids=["delivered", "called"], indirect=True)
"""Over a delivery, and with a call for each reader, what clients see is the same."""


def draining() -> Unavailable:
    return Unavailable(Reason.DRAINING, "this server is shutting down", retry_after_ms=10)


def recovering() -> Unavailable:
    return Unavailable(Reason.RECOVERING, "it looks for its tasks", retry_after_ms=10)


def reset() -> InvalidArgument:
    return InvalidArgument(Reason.STREAM_RESET, "it was started over")


def gone() -> NotFound:
    return NotFound(Reason.TASK_NOT_FOUND, "no task has that id")


async def data_of(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: ")]


async def generated(client: httpx.AsyncClient) -> str:
    return check_sse([json.loads(one) for one in await data_of(await client.post("/v2/generate", json=TASK))])


async def followed(client: httpx.AsyncClient) -> str:
    return check_sse([json.loads(one) for one in await data_of(await client.get(EVENTS))])


async def streamed(client: httpx.AsyncClient) -> str:
    answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    return check_chunks(await data_of(answer))


async def whole(client: httpx.AsyncClient) -> str:
    answer = await client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert shown["usage"]["completion_tokens"] == len(WORDS)
    return str(shown["choices"][0]["message"]["content"])


DOORS = pytest.mark.parametrize("read", [generated, followed, streamed, whole])


@both_ways
@DOORS
async def test_a_stream_that_ends_early_goes_on_wherever_it_ended(
    orchestrator: FakeOrchestrator, gateway: RunningGateway, read: Read
) -> None:
    for position in POSITIONS:
        if position == 0 and read is not followed:
            continue  # a refusal of the first call is told
        script = ScriptedTask(orchestrator, deque([Turn(draining(), after=position)]))
        if position == 0:
            script.turns[0] = Turn(recovering())
        assert await read(gateway.client) == TEXT, f"ended after {position} events"
        ended = position == POSITIONS[-1]
        assert len(script.asked) == (1 if ended else 2)


@both_ways
@DOORS
async def test_a_connection_that_is_cut_goes_unnoticed_wherever_it_is_cut(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway, read: Read
) -> None:
    async with cuttable(orchestrator.address) as line:
        client = (await start_gateway(orchestrator=line.address)).client
        for position in POSITIONS:
            script = ScriptedTask(orchestrator, deque([Turn(cut(line), after=position)]))
            assert await read(client) == TEXT, f"cut after {position} events"
            assert len(script.asked) <= 2


@both_ways
@DOORS
async def test_it_may_break_again_and_again(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway, read: Read
) -> None:
    async with cuttable(orchestrator.address) as line:
        client = (await start_gateway(orchestrator=line.address)).client
        turns = [
            Turn(cut(line), after=3),
            Turn(draining(), after=4),
            Turn(cut(line), after=0),
            Turn(draining(), after=2),
        ]
        ScriptedTask(orchestrator, deque(turns))
        assert await read(client) == TEXT


@both_ways
@DOORS
async def test_a_restart_that_looks_for_its_tasks_is_waited_for(
    orchestrator: FakeOrchestrator, gateway: RunningGateway, read: Read
) -> None:
    script = ScriptedTask(orchestrator, deque([Turn(draining(), after=4), Turn(recovering()), Turn(recovering())]))
    assert await read(gateway.client) == TEXT
    assert script.cursors[-3:] == ["1.2"] * 3


@both_ways
@DOORS
async def test_what_starts_over_before_any_output_was_shown_is_read_from_its_beginning(
    orchestrator: FakeOrchestrator, gateway: RunningGateway, read: Read
) -> None:
    script = ScriptedTask(orchestrator, deque([Turn(draining(), after=2), Turn(reset())]))
    assert await read(gateway.client) == TEXT
    assert script.cursors[-2:] == ["1.0", ""]


@both_ways
async def test_what_starts_over_after_output_was_shown_is_told_as_the_door_tells_errors(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    def broken() -> ScriptedTask:
        return ScriptedTask(orchestrator, deque([Turn(draining(), after=4), Turn(reset())]))

    broken()
    shown = await data_of(await gateway.client.post("/v2/generate", json=TASK))
    assert [json.loads(one)["type"] for one in shown] == ["started", "placed", "token", "token", "error"]
    assert (json.loads(shown[-1])["code"], json.loads(shown[-1])["retryable"]) == ("STREAM_RESET", False)
    broken()
    stream = await SseReader.open(gateway.address, EVENTS)
    events = await stream.events()
    await stream.close()
    assert [event.type for event in events] == ["started", "placed", "token", "token", "reset"]
    broken()
    shown = await data_of(await gateway.client.post("/v1/chat/completions", json={**CHAT, "stream": True}))
    assert json.loads(shown[-1])["error"]["code"] == "stream_reset"
    script = broken()
    assert await whole(gateway.client) == TEXT, "of what is told at once, nothing was shown"
    assert script.cursors == ["1.2", ""]


@both_ways
async def test_a_task_that_is_lost_with_the_orchestrator_is_told_where_its_client_knows_it(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    ScriptedTask(orchestrator, deque([Turn(draining(), after=4), Turn(gone())]))
    shown = await data_of(await gateway.client.post("/v2/generate", json=TASK))
    error = json.loads(shown[-1])
    assert (error["code"], error["retryable"]) == ("UPSTREAM_UNAVAILABLE", True)
    assert "the orchestrator has ended meanwhile, and with it this task" in error["message"]
    ScriptedTask(orchestrator, deque([Turn(draining(), after=4), Turn(gone())]))
    shown = await data_of(await gateway.client.post("/v1/chat/completions", json={**CHAT, "stream": True}))
    assert json.loads(shown[-1])["error"]["type"] == "server_error"
    ScriptedTask(orchestrator, deque([Turn(draining(), after=4), Turn(gone())]))
    shown = await data_of(await gateway.client.get(EVENTS))
    assert json.loads(shown[-1])["code"] == "TASK_NOT_FOUND", "one that was to outlive it is told of as it is"


@both_ways
@pytest.mark.parametrize(("read", "after"), [(streamed, 2), (whole, 2), (whole, 5)])
async def test_a_task_that_is_lost_before_its_client_saw_anything_of_it_is_asked_for_again(
    orchestrator: FakeOrchestrator, gateway: RunningGateway, read: Read, after: int
) -> None:
    script = ScriptedTask(orchestrator, deque([Turn(draining(), after=after), Turn(gone())]))
    assert await read(gateway.client) == TEXT
    first, followed_, again = script.asked
    assert isinstance(followed_, tasks.StreamTaskRequest)
    assert first == again


@both_ways
async def test_a_call_that_broke_before_its_task_was_known_is_repeated_as_the_same_request(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    async with cuttable(orchestrator.address) as line:
        client = (await start_gateway(orchestrator=line.address)).client
        script = ScriptedTask(orchestrator, deque([Turn(cut(line)), Turn(cut(line))]))
        assert await generated(client) == TEXT
        assert len(script.asked) == 3
        assert len({request.task.request_id for request in script.asked}) == 1
        assert script.asked[0].task.request_id.startswith("gateway-")
        await generated(client)
        assert script.asked[3].task.request_id != script.asked[0].task.request_id
        await client.post("/v2/generate", json={**TASK, "request_id": "mine"})
        assert script.asked[4].task.request_id == "mine"


@both_ways
async def test_a_call_that_finds_no_orchestrator_is_refused_at_once(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    await orchestrator.stop()
    began = time.monotonic()
    for asking in (
        gateway.client.post("/v2/generate", json=TASK),
        gateway.client.post("/v1/chat/completions", json={**CHAT, "stream": True}),
        gateway.client.post("/v1/chat/completions", json=CHAT),
        gateway.client.get(EVENTS),
    ):
        assert (await asking).status_code == 503
    assert time.monotonic() - began < 2


@both_ways
async def test_a_refusal_is_not_repeated(orchestrator: FakeOrchestrator, gateway: RunningGateway) -> None:
    script = ScriptedTask(orchestrator, deque([Turn(draining()), Turn(gone())]))
    assert (await gateway.client.post("/v2/generate", json=TASK)).status_code == 503
    assert (await gateway.client.get(EVENTS)).status_code == 404
    assert len(script.asked) == 2


@both_ways
@pytest.mark.parametrize("ends_with", [recovering(), draining()], ids=["recovering", "draining"])
async def test_the_error_is_told_when_the_time_is_over(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway, ends_with: LlorchError
) -> None:
    gateway = await start_gateway(reattach_s=0.4)
    script = ScriptedTask(orchestrator, deque([Turn(draining(), after=4), *[Turn(ends_with)] * 100]))
    began = time.monotonic()
    shown = [json.loads(one) for one in await data_of(await gateway.client.post("/v2/generate", json=TASK))]
    assert 0.4 <= time.monotonic() - began < 2
    assert [one["type"] for one in shown] == ["started", "placed", "token", "token", "error"]
    assert (shown[-1]["code"], shown[-1]["retryable"]) == (ends_with.reason.value, True)
    assert 3 <= len(script.asked) < 12


@both_ways
async def test_an_orchestrator_that_begins_each_stream_and_breaks_it_is_given_up(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    gateway = await start_gateway(reattach_s=0.4)
    ScriptedTask(orchestrator, deque([Turn(draining(), after=4), *[Turn(draining(), after=2)] * 100]))
    shown = [json.loads(one) for one in await data_of(await gateway.client.post("/v2/generate", json=TASK))]
    assert [one["type"] for one in shown] == ["started", "placed", "token", "token", "error"]


@both_ways
async def test_the_time_begins_anew_with_each_event_that_says_something_new(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    gateway = await start_gateway(reattach_s=0.3)
    words = tuple("abcdefghijklmnop")
    ScriptedTask(orchestrator, deque([Turn(draining(), after=3)] * len(words)), log_of(words))
    began = time.monotonic()
    assert await generated(gateway.client) == "".join(words)
    assert time.monotonic() - began > 0.6


@both_ways
async def test_an_orchestrator_that_does_not_answer_is_given_up(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    gateway = await start_gateway(reattach_s=0.4)
    ScriptedTask(orchestrator, deque([Turn(draining(), after=4), Turn(asyncio.Event().wait)]))
    began = time.monotonic()
    shown = [json.loads(one) for one in await data_of(await gateway.client.post("/v2/generate", json=TASK))]
    assert [one["type"] for one in shown] == ["started", "placed", "token", "token", "error"]
    assert time.monotonic() - began < 2


@both_ways
async def test_a_client_hears_that_its_stream_lives_while_the_orchestrator_is_away(
    orchestrator: FakeOrchestrator, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_EVERY_S", 0.02)
    monkeypatch.setattr(event_stream, "FIRST_EVENT_WITHIN_S", 0.02)
    ScriptedTask(orchestrator, deque([Turn(draining(), after=4), *[Turn(recovering())] * 3]))
    stream = await SseReader.open(gateway.address, EVENTS)
    await stream.events(4)
    heard = len(stream.comments)
    events = await stream.events()
    await stream.close()
    assert len(stream.comments) >= heard + 5
    assert [event.type for event in events] == ["token"] * 3 + ["end"]


@both_ways
async def test_each_attempt_shows_who_asks(orchestrator: FakeOrchestrator, gateway: RunningGateway) -> None:
    orchestrator.answer("GetIdentity", meta_service_pb2.GetIdentityResponse())
    shown = {"authorization": f"Bearer {new_app_key()}", "x-correlation-id": "mine"}
    script = ScriptedTask(orchestrator, deque([Turn(draining(), after=4), Turn(recovering())]))
    await gateway.client.post("/v2/generate", json=TASK, headers=shown)
    assert [{name: metadata[name] for name in shown} for metadata in script.metadata] == [shown] * 3


@both_ways
async def test_a_key_that_was_deleted_meanwhile_reads_nothing_more(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    unknown = Unauthenticated(Reason.TOKEN_INVALID, "no app has this key")
    script = ScriptedTask(orchestrator, deque([Turn(draining(), after=4), Turn(unknown)]))
    shown = [json.loads(one) for one in await data_of(await gateway.client.get(EVENTS))]
    assert [one["type"] for one in shown] == ["started", "placed", "token", "token", "error"]
    assert shown[-1]["code"] == "TOKEN_INVALID"
    assert len(script.asked) == 2


@both_ways
async def test_what_a_slow_client_has_not_taken_is_neither_lost_nor_repeated(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    words = tuple(f"{number:04}{'x' * 16_000} " for number in range(1500))
    async with cuttable(orchestrator.address) as line:
        gateway = await start_gateway(orchestrator=line.address)
        script = ScriptedTask(orchestrator, log=log_of(words))
        stream = await SseReader.open(gateway.address, EVENTS)
        events = await stream.events(1)
        for _ in range(3):
            await script.wait_stalled()
            assert script.written < len(script.log) * 0.9, "it is the client that nothing moves for"
            line.cut()
            events += await stream.events(20)
        events += await stream.events()
        await stream.close()
    assert check_sse([event.data for event in events]) == "".join(words)


@pytest.mark.parametrize("orchestrator", [True], ids=["delivered"], indirect=True)
async def test_a_stream_is_attached_again_while_its_client_takes_nothing(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    """What nothing reads is cancelled after two seconds. With a call for each reader the library does not tell."""
    words = tuple(f"{number:04}{'x' * 16_000} " for number in range(1500))
    async with cuttable(orchestrator.address) as line:
        gateway = await start_gateway(orchestrator=line.address)
        script = ScriptedTask(orchestrator, log=log_of(words))
        stream = await SseReader.open(gateway.address, EVENTS)
        events = await stream.events(1)
        for times in (2, 3, 4):
            await script.wait_stalled()
            line.cut()
            await script.wait_asked(times, within_s=1)
        events += await stream.events()
        await stream.close()
    assert check_sse([event.data for event in events]) == "".join(words)
    assert len(script.asked) == 4


@pytest.mark.parametrize("orchestrator", [True], ids=["delivered"], indirect=True)
async def test_an_end_that_has_come_is_told_though_the_task_is_gone_before_its_client_reads_it(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    """As much as a gateway is sent ahead waits there, the end among it."""
    async with cuttable(orchestrator.address) as line:
        gateway = await start_gateway(orchestrator=line.address)
        stalling = deque([Turn(asyncio.Event().wait, after=None), Turn(gone())])
        script = ScriptedTask(orchestrator, stalling, log_of(("x" * 12_000_000, "y", "z")))
        body = json.dumps(TASK).encode()
        stream = await SseReader.open(gateway.address, "/v2/generate", body=body)
        async with asyncio.timeout(5):
            while script.written < len(script.log):
                await asyncio.sleep(0.01)
        await script.wait_stalled()
        line.cut()
        events = await stream.events()
        await stream.close()
    assert [event.type for event in events] == ["started", "placed", "token", "token", "token", "end"]
    assert len(script.asked) == 1


@both_ways
async def test_a_gateway_that_ends_ends_streams_that_look_for_their_orchestrator(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    script = ScriptedTask(orchestrator, deque([Turn(draining(), after=4), *[Turn(recovering())] * 1000]))
    stream = await SseReader.open(gateway.address, "/v2/generate", body=json.dumps(TASK).encode())
    await stream.events(4)
    await script.wait_asked(3)
    stopped_at = time.monotonic()
    gateway.stop.set()
    (error,) = await stream.events()
    await stream.close()
    assert (error.data["code"], error.data["retryable"]) == ("DRAINING", True)
    await gateway.task
    assert time.monotonic() - stopped_at < 1


@both_ways
async def test_a_client_that_leaves_while_its_stream_looks_for_the_orchestrator_ends_that(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    script = ScriptedTask(orchestrator, deque([Turn(draining(), after=4), *[Turn(recovering())] * 1000]))
    stream = await SseReader.open(gateway.address, EVENTS)
    await stream.events(4)
    await script.wait_asked(3)
    await stream.close()
    async with asyncio.timeout(5):
        while True:
            asked = len(script.asked)
            await asyncio.sleep(1.1)  # the longest pause: nothing is asked any more
            if len(script.asked) == asked:
                break


@both_ways
async def test_answers_that_are_not_streamed_are_made_while_the_gateway_ends(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    release = asyncio.Event()

    async def late() -> None:
        await release.wait()

    script = ScriptedTask(orchestrator, deque([Turn(late, after=None)]))
    asking = asyncio.create_task(gateway.client.post("/v1/chat/completions", json=CHAT))
    await script.wait_asked(1)
    gateway.stop.set()
    release.set()
    assert (await asking).status_code == 200


@both_ways
async def test_answers_that_are_not_made_by_then_are_refused(
    orchestrator: FakeOrchestrator, gateway: RunningGateway
) -> None:
    script = ScriptedTask(orchestrator, deque([Turn(asyncio.Event().wait, after=3)]))
    asking = asyncio.create_task(gateway.client.post("/v1/chat/completions", json=CHAT))
    await script.wait_asked(1)
    gateway.stop.set()
    answer = await asking
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
    assert answer.headers["x-should-retry"] == "true"


def cut(line: Line) -> Callable[[], Awaitable[None]]:
    async def cut_and_wait() -> None:
        line.cut()
        await asyncio.Event().wait()

    return cut_and_wait
