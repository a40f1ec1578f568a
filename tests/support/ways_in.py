"""All ways in which a program or a person can ask for a model, told alike: served, refused, or what it waits for."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import StrEnum
from typing import Any

import httpx

from llama_orch.v2 import error_reason_pb2, task_event_pb2, task_pb2, task_service_pb2
from llorch.errors import LlorchError, Unavailable
from llorch.rpc.client import call, open_stream
from llorch.sdk.async_client import AsyncClient
from support.machines import Machines
from support.whole_system import task

TOKENS = 4
_PROMPT = "hello"
_SILENT_S = 120.0
_CALL_S = 10.0
_RETRYABLE_STATUS = 503


class WayIn(StrEnum):
    RUN = "llorch run"
    LOAD = "llorch load"
    SUBMIT = "SubmitTask"
    GENERATE = "Generate"
    HTTP_TASKS = "POST /v2/tasks"
    HTTP_GENERATE = "POST /v2/generate"
    OPENAI = "POST /v1/chat/completions"


class Refused(Exception):
    """`is_retryable`: the caller was told, in the form of this way in, that the same request may succeed later; at the
    command line, in words.
    """

    def __init__(self, message: str, *, is_retryable: bool, told: str) -> None:
        super().__init__(message)
        self.message = message
        self.is_retryable = is_retryable
        self.told = told


class Ask:
    """One request, and what has come of it so far. `when` it was made is for messages."""

    def __init__(self, way: WayIn, model: str, running: Machines, when: str) -> None:
        self.model = model
        self._name = f"{way} {model}, {when}"
        self._told: list[str] = []
        self._asking: asyncio.Task[None] = asyncio.create_task(_WAYS[way](running, model, self._told))

    @property
    def is_over(self) -> bool:
        return self._asking.done()

    @property
    def told(self) -> str:
        """What its sender heard while it waited."""
        return " ".join(" ".join(self._told).split())

    @property
    def refusal(self) -> Refused | None:
        """Once it is over; None if it was served."""
        error = self._asking.exception()
        if error is None or isinstance(error, Refused):
            return error
        raise error

    async def wait(self, within_s: float) -> bool:
        """Whether it is over by then."""
        await asyncio.wait({self._asking}, timeout=within_s)
        return self.is_over

    async def give_up(self) -> None:
        self._asking.cancel()
        await asyncio.gather(self._asking, return_exceptions=True)

    def __str__(self) -> str:
        return self._name


async def _generate(running: Machines, model: str, told: list[str]) -> None:
    async with running.client() as client:
        request = task_service_pb2.GenerateRequest(task=task(_PROMPT, model, TOKENS))
        with _calls_refused():
            async with open_stream(client._stubs.tasks.Generate, request, idle_timeout_s=_SILENT_S) as answers:
                await _read(answers, told)


async def _submit(running: Machines, model: str, told: list[str]) -> None:
    async with running.client() as client:
        request = task_service_pb2.SubmitTaskRequest(task=task(_PROMPT, model, TOKENS))
        with _calls_refused():
            accepted = await call(client._stubs.tasks.SubmitTask, request, timeout_s=_CALL_S)
        await _read_task(client, accepted.task_id, told)


async def _http_tasks(running: Machines, model: str, told: list[str]) -> None:
    async with _http(running) as http:
        answer = await http.post("/v2/tasks", json=_body(model))
        if answer.status_code != httpx.codes.ACCEPTED:
            raise _refused_by_http(answer, answer.json()["error"])
        async with http.stream("GET", f"/v2/tasks/{answer.json()['task_id']}/events") as events:
            await _read_sse(events, told)


async def _http_generate(running: Machines, model: str, told: list[str]) -> None:
    async with _http(running) as http, http.stream("POST", "/v2/generate", json=_body(model)) as events:
        await _read_sse(events, told)


async def _openai(running: Machines, model: str, told: list[str]) -> None:
    """Its clients hear nothing while they wait; what their task waits for is told to readers of the task itself."""
    body = {"model": model, "messages": [{"role": "user", "content": _PROMPT}], "max_tokens": TOKENS}
    async with _http(running) as http, _told_of_waiting(running, model, told):
        answer = await http.post("/v1/chat/completions", json=body)
    if answer.status_code != httpx.codes.OK:
        raise _refused_by_http(answer, answer.json()["error"])
    assert answer.json()["choices"][0]["message"]["content"]


async def _run(running: Machines, model: str, told: list[str]) -> None:
    await _llorch(running, told, "run", model, _PROMPT, "--max-tokens", str(TOKENS))


async def _load(running: Machines, model: str, told: list[str]) -> None:
    await _llorch(running, told, "load", model)


_WAYS: dict[WayIn, Callable[[Machines, str, list[str]], Coroutine[Any, Any, None]]] = {
    WayIn.RUN: _run,
    WayIn.LOAD: _load,
    WayIn.SUBMIT: _submit,
    WayIn.GENERATE: _generate,
    WayIn.HTTP_TASKS: _http_tasks,
    WayIn.HTTP_GENERATE: _http_generate,
    WayIn.OPENAI: _openai,
}


async def _llorch(running: Machines, told: list[str], *arguments: str) -> None:
    """The command line, whose stderr is a terminal: only then it tells what it waits for."""
    here, terminal = os.openpty()
    loop, lines = asyncio.get_running_loop(), _Lines(told)
    os.set_blocking(here, False)
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "llorch", *arguments, "--address", running.orchestrator.address),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=terminal,
        )
    finally:
        os.close(terminal)
    loop.add_reader(here, lines.take, here)
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        lines.take(here)
        loop.remove_reader(here)
        os.close(here)
    if process.returncode != 0:
        message = " ".join(lines.text.split())
        raise Refused(message, is_retryable="try again" in message, told=f"exit code {process.returncode}: {message}")
    assert out.strip() or arguments[0] == "load"


class _Lines:
    """What a program writes to its terminal, which wraps nothing."""

    def __init__(self, told: list[str]) -> None:
        self.text = ""
        self._told = told

    def take(self, descriptor: int) -> None:
        try:
            while data := os.read(descriptor, 65536):
                self.text += data.decode(errors="replace")
        except OSError:  # nothing more now, or the other end is closed
            pass
        self._told[:] = [line.strip() for line in self.text.splitlines() if line.strip()]


def _body(model: str) -> dict[str, Any]:
    return {"model": model, "generate": {"prompt": _PROMPT, "max_tokens": TOKENS}}


def _http(running: Machines) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=running.gateway.url, timeout=_SILENT_S, trust_env=False)


def _refused_by_http(answer: httpx.Response, error: dict[str, Any]) -> Refused:
    """Retryable is what all of the answer says so of: its status, its header, and the field that /v2 has for it."""
    after = answer.headers.get("retry-after", "")
    is_retryable = answer.status_code == _RETRYABLE_STATUS and after.isdecimal() and error.get("retryable", True)
    told = f"HTTP {answer.status_code}, Retry-After {after or 'missing'}, {json.dumps(error)}"
    return Refused(error["message"], is_retryable=is_retryable, told=told)


async def _read_sse(events: httpx.Response, told: list[str]) -> None:
    if events.status_code != httpx.codes.OK:
        await events.aread()
        raise _refused_by_http(events, events.json()["error"])
    kind = ""
    async for line in events.aiter_lines():
        if not line.startswith("data:"):
            continue
        event = json.loads(line[5:])
        kind = event["type"]
        if kind == "narration":
            told.append(event["text"])
        if kind == "error":
            raise Refused(event["message"], is_retryable=event["retryable"], told=f"event {line[5:].strip()}")
    assert kind == "end", f"the stream ended with {kind!r}"


async def _read_task(client: AsyncClient, task_id: str, told: list[str]) -> None:
    request = task_service_pb2.StreamTaskRequest(task_id=task_id)
    async with open_stream(client._stubs.tasks.StreamTask, request, idle_timeout_s=_SILENT_S) as answers:
        await _read(answers, told)


async def _read(answers: AsyncIterator[Any], told: list[str]) -> None:
    last = task_event_pb2.TaskEvent()
    async for answer in answers:
        last = answer.event
        if last.HasField("narration"):
            told.append(last.narration.text)
    if last.HasField("error"):
        reason = error_reason_pb2.ErrorReason.Name(last.error.reason)
        raise Refused(last.error.message, is_retryable=last.error.retryable, told=f"{reason}: {last.error.message}")
    assert last.HasField("end"), last


@contextmanager
def _calls_refused() -> Iterator[None]:
    """A call that is refused in the block raises Refused."""
    try:
        yield
    except LlorchError as error:
        told = f"{error.code} {error.reason}: {error.message}"
        raise Refused(error.message, is_retryable=isinstance(error, Unavailable), told=told) from error


@asynccontextmanager
async def _told_of_waiting(running: Machines, model: str, told: list[str]) -> AsyncIterator[None]:
    """What tasks of a model that wait are told in the meantime."""

    async def listen() -> None:
        request = task_service_pb2.ListTasksRequest(state=task_pb2.TASK_STATE_QUEUED)
        async with running.client() as client:
            while True:
                waiting = await call(client._stubs.tasks.ListTasks, request, timeout_s=_CALL_S)
                for found in waiting.tasks:
                    if found.model == model and not found.durable:
                        with suppress(Refused):
                            await _read_task(client, found.task_id, told)
                await asyncio.sleep(0.05)

    listening = asyncio.create_task(listen())
    try:
        yield
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
