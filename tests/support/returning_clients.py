"""Clients of an orchestrator that dies: each wants one task done, comes back until it is, and checks what it is shown.

Their tasks run on the simulated engine, whose text is known: a client fails at the first token that is another one than
is due, or comes at another index than the next one.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

from llama_orch.v2 import fleet_service_pb2, task_event_pb2, task_pb2, task_service_pb2
from llama_orch.v2.cancel_pb2 import CancelOutcome
from llama_orch.v2.fleet_service_pb2_grpc import FleetServiceStub
from llama_orch.v2.task_service_pb2_grpc import TaskServiceStub
from llorch.errors import DeadlineExceeded, InvalidArgument, LlorchError, NotFound, Reason, Unavailable
from llorch.rpc.client import call, open_channel, open_stream
from support.streams import check_stream
from worker_orcd.engines.sim.tokens import sim_text, sim_token

CALL_S = 20.0
SILENT_S = 60.0
_ANSWERS_WITHIN_S = 30.0
_MOST_PAUSE_S = 0.25
_POLL_S = 0.02
_MOST_LATE = 2
"""Answers, one after the other: they are waited for 60 s together, twice as long as any orchestrator stands still."""
Answer = TypeVar("Answer")


class Door:
    """The way to the orchestrator at one address, anew for each of its lives; an async context manager.

    A channel that was refused while there was none would wait before it connects again.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._channels = AsyncExitStack()
        self._opened = asyncio.Event()
        self._opened_at = math.inf

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channels.aclose()

    async def open(self) -> None:
        """Returns as soon as there is an orchestrator that answers."""
        request = fleet_service_pb2.GetStateRequest()
        async with asyncio.timeout(_ANSWERS_WITHIN_S):
            while True:
                channel = open_channel(self._address)
                try:
                    await call(FleetServiceStub(channel).GetState, request, timeout_s=CALL_S)
                except LlorchError:
                    await channel.close()
                    await asyncio.sleep(_POLL_S)
                else:
                    break
        self._channels.push_async_callback(channel.close)
        self.channel = channel
        self._opened_at = asyncio.get_running_loop().time()
        self._opened.set()
        self._opened = asyncio.Event()

    def shut(self) -> None:
        """There is none, until the next `open`."""
        self._opened_at = math.inf

    @property
    def open_for_s(self) -> float:
        """0 also while it is shut: clients may be faster than `open`."""
        return max(0.0, asyncio.get_running_loop().time() - self._opened_at)

    @property
    def tasks(self) -> TaskServiceStub:
        return TaskServiceStub(self.channel)

    async def pause(self, error: Unavailable) -> None:
        """As the error says; or until there is another orchestrator, where that is sooner."""
        with suppress(TimeoutError):
            async with asyncio.timeout(error.retry_after_ms / 1000 if error.retry_after_ms else _MOST_PAUSE_S):
                await self._opened.wait()

    async def insist(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Asks the same until the answer comes, also of an orchestrator that stood still for longer than the call."""
        late = 0
        while True:
            try:
                return await ask()
            except Unavailable as error:
                await self.pause(error)
            except DeadlineExceeded:
                late += 1
                if late > _MOST_LATE:
                    raise


@dataclass
class Client:
    """One task, and all that its client was told. `cancel_after`: tokens that it reads before it cancels its task."""

    name: str
    seed: int
    model: str
    tokens: int
    durable: bool
    cancel_after: int | None = None
    deterministic: bool = False
    task_id: str = ""
    events: list[task_event_pb2.TaskEvent] = field(default_factory=list)
    shown: int = 0
    """How many tokens."""
    is_gone: bool = False
    """A call whose task is not known any more."""
    may_get_lost: bool = False
    """A call that ends with its worker, whatever was shown of it."""
    cancel_outcome: CancelOutcome.ValueType | None = None
    resets: int = 0
    given_up_s: list[float] = field(default_factory=list)
    """After another orchestrator answered: until it said that what was shown goes on no more."""
    went_on_s: list[float] = field(default_factory=list)
    """After another orchestrator answered: until there was more of what had begun to come."""
    _was_cut: bool = False
    _cancelling: "asyncio.Task[None] | None" = None

    @property
    def terminal(self) -> task_event_pb2.TaskEvent | None:
        last = self.events[-1] if self.events else None
        return last if last is not None and _is_terminal(last) else None

    @property
    def spec(self) -> task_pb2.TaskSpec:
        work = task_pb2.GenerateWork(prompt="a story", max_tokens=self.tokens)
        work.sampling.seed = self.seed
        request_id = self.name if self.durable else ""
        return task_pb2.TaskSpec(
            model=self.model, generate=work, request_id=request_id, deterministic=self.deterministic
        )

    async def run(self, door: Door) -> None:
        """Until its task has ended, and a cancel of it was answered."""
        try:
            if self.durable:
                self.task_id = await self.submit(door)
            else:
                await self._generate(door)
            while self.terminal is None and not self.is_gone:
                await self._come_back(door)
            if self._cancelling is not None:
                await self._cancelling
        finally:
            if self._cancelling is not None:
                self._cancelling.cancel()
        self._check()

    async def submit(self, door: Door) -> str:
        """However often it is asked, it is one task."""
        request = task_service_pb2.SubmitTaskRequest(task=self.spec)
        return (await door.insist(lambda: call(door.tasks.SubmitTask, request, timeout_s=CALL_S))).task_id

    async def read_again(self, door: Door) -> None:
        """All of it, from the beginning: what was shown before is still so."""
        before = self.terminal
        self.events.clear()
        self.shown = 0
        await self._read(door, "")
        assert self.terminal == before, f"{self.name}: another terminal than before: {before}, {self.terminal}"
        self._check()

    async def _generate(self, door: Door) -> None:
        request = task_service_pb2.GenerateRequest(task=self.spec)
        try:
            async with open_stream(door.tasks.Generate, request, idle_timeout_s=SILENT_S) as answers:
                async for answer in answers:
                    self._take(door, answer.event)
        except Unavailable as error:
            self._was_cut = self.shown > 0
            self.is_gone = not self.task_id
            await door.pause(error)

    async def _come_back(self, door: Door) -> None:
        try:
            await self._read(door, self.events[-1].cursor if self.events else "")
        except Unavailable as error:
            self._was_cut = self.shown > 0
            await door.pause(error)
        except InvalidArgument as error:
            if error.reason is not Reason.STREAM_RESET:
                raise
            self.resets += 1
            self.given_up_s.append(door.open_for_s)
            self._was_cut = False
            self.events.clear()
            self.shown = 0
        except NotFound as error:
            may_be_gone = not self.shown or self.may_get_lost
            if self.durable or not may_be_gone or error.reason is not Reason.TASK_NOT_FOUND:
                raise
            self.given_up_s.append(door.open_for_s)
            self.is_gone = True

    async def _read(self, door: Door, after: str) -> None:
        request = task_service_pb2.StreamTaskRequest(task_id=self.task_id, after=after)
        async with open_stream(door.tasks.StreamTask, request, idle_timeout_s=SILENT_S) as answers:
            async for answer in answers:
                self._take(door, answer.event)

    def _take(self, door: Door, event: task_event_pb2.TaskEvent) -> None:
        assert self.terminal is None, f"{self.name}: after its terminal came {event}"
        self.task_id = self.task_id or event.task_id
        assert event.task_id == self.task_id
        kind = event.WhichOneof("event")
        if kind == "tokens":
            self._check_tokens(event.tokens)
            self.shown += event.tokens.count
        if self._was_cut and self.shown and (kind == "tokens" or _is_terminal(event)):
            self._was_cut = False
            self.went_on_s.append(door.open_for_s)
        if kind != "started" or not self.events:
            self.events.append(event)
        if self.cancel_after is not None and self.shown >= self.cancel_after and self._cancelling is None:
            self._cancelling = asyncio.create_task(self._cancel(door))

    def _check_tokens(self, tokens: task_event_pb2.Tokens) -> None:
        assert tokens.index == self.shown, f"{self.name}: token {tokens.index} where {self.shown} is due"
        indices = range(tokens.index, tokens.index + tokens.count)
        due = "".join(sim_token(self.seed, 0, index).text for index in indices)
        assert tokens.text == due, f"{self.name}: another text at {tokens.index}: {tokens.text!r}, not {due!r}"

    async def _cancel(self, door: Door) -> None:
        request = task_service_pb2.CancelTaskRequest(task_id=self.task_id)
        answer = await door.insist(lambda: call(door.tasks.CancelTask, request, timeout_s=CALL_S))
        self.cancel_outcome = answer.outcome

    def _check(self) -> None:
        if self.is_gone:
            return
        text = check_stream(self.events)
        last = self.events[-1]
        reasons = [choice.finish_reason for choice in last.end.choices]
        if reasons == [task_event_pb2.FINISH_REASON_CANCELLED]:
            assert self._cancelling is not None, f"{self.name}: cancelled by itself"
        else:
            assert reasons == [task_event_pb2.FINISH_REASON_LENGTH], f"{self.name}: {last}"
            assert text == sim_text(self.seed, 0, self.tokens), f"{self.name}: the text is not whole"


def _is_terminal(event: task_event_pb2.TaskEvent) -> bool:
    return event.WhichOneof("event") in ("end", "error")


class Crowd:
    """Clients that run side by side; an async context manager, which ends them all."""

    def __init__(self, clients: Sequence[Client], door: Door) -> None:
        self.clients = tuple(clients)
        self._door = door
        self._running: dict[asyncio.Task[None], Client] = {}

    async def __aenter__(self) -> Self:
        self._running = {asyncio.create_task(client.run(self._door)): client for client in self.clients}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def wait_shown(self, count: int, within_s: float) -> None:
        """Until so many of them have been shown output."""
        async with asyncio.timeout(within_s):
            while sum(client.shown > 0 for client in self.clients) < count:
                await asyncio.sleep(_POLL_S)

    async def wait_ended(self, within_s: float, where: str) -> None:
        """Fails with each client that failed, and each whose task did not end."""
        await asyncio.wait(self._running, timeout=within_s)
        told = []
        for running, client in self._running.items():
            if not running.done():
                told.append(f"{client.name} never ended; last was: {client.events[-1:]}")
            elif (failure := running.exception()) is not None:
                told.append(f"{client.name}, shown {client.shown} tokens: {type(failure).__name__}: {failure}")
        assert not told, "\n".join((where, *told))
