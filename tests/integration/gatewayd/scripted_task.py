"""One task at an orchestrator that is lost and comes back as a test says."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from llama_orch.v2 import task_event_pb2
from llama_orch.v2 import task_service_pb2 as tasks
from llama_orch.v2.task_event_pb2 import ChoiceEnd, End, Placed, Started, TaskEvent, Tokens
from llorch.errors import LlorchError

from .fake_orchestrator import FakeOrchestrator

TASK_ID = "task-1"
WORDS = ("Rød", ", grün", ", 🙂", " blue", ".")


@dataclass(frozen=True)
class Turn:
    """What one reader gets: so many events as `after` says, all where it is None, and then `then`."""

    then: LlorchError | Callable[[], Awaitable[object]] | None = None
    after: int | None = 0


def log_of(words: tuple[str, ...] = WORDS, epoch: int = 1) -> list[TaskEvent]:
    """Started and Placed have a cursor of their own, as with the real one."""
    eos = ChoiceEnd(finish_reason=task_event_pb2.FINISH_REASON_EOS)
    told = [
        TaskEvent(cursor=f"{epoch}.0", started=Started(model="m", seed=7)),
        TaskEvent(cursor=f"{epoch}.0", placed=Placed(attempt=1, node_id="garage", engine="sim")),
        *(
            TaskEvent(cursor=f"{epoch}.{index + 1}", tokens=Tokens(index=index, count=1, text=word))
            for index, word in enumerate(words)
        ),
        TaskEvent(cursor=f"{epoch}.{len(words)}", end=End(choices=[eos], tokens_in=5, tokens_out=len(words))),
    ]
    for event in told:
        event.task_id = TASK_ID
    return told


@dataclass
class ScriptedTask:
    """Its readers take the `turns` one after the other, and everything once there are no more."""

    orchestrator: FakeOrchestrator
    turns: deque[Turn] = field(default_factory=deque)
    log: list[TaskEvent] = field(default_factory=log_of, repr=False)
    """Much of it would take long to show where a handler fails."""
    asked: list[Any] = field(default_factory=list)
    """The requests."""
    metadata: list[dict[str, str]] = field(default_factory=list)
    written: int = 0
    """Events, to all readers."""

    def __post_init__(self) -> None:
        self.orchestrator.on("Generate", self._generate)
        self.orchestrator.on("StreamTask", self._follow)

    @property
    def cursors(self) -> list[str]:
        """Of those that came back."""
        return [request.after for request in self.asked if isinstance(request, tasks.StreamTaskRequest)]

    async def wait_asked(self, times: int, within_s: float = 5.0) -> None:
        async with asyncio.timeout(within_s):
            while len(self.asked) < times:
                await asyncio.sleep(0.005)

    async def wait_stalled(self) -> None:
        """Until all that may be under way to clients that read nothing is."""
        before = -1
        while self.written != before:
            before = self.written
            await asyncio.sleep(0.1)

    async def _generate(self, request: tasks.GenerateRequest, context: Any) -> None:
        await self._tell(request, "", context, tasks.GenerateResponse)

    async def _follow(self, request: tasks.StreamTaskRequest, context: Any) -> None:
        await self._tell(request, request.after, context, tasks.StreamTaskResponse)

    async def _tell(self, request: Any, after: str, context: Any, response: Any) -> None:
        self.asked.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        turn = self.turns.popleft() if self.turns else Turn(after=None)
        for event in islice(self._events_after(after), turn.after):
            await context.write(response(event=event))
            self.written += 1
        if isinstance(turn.then, LlorchError):
            raise turn.then
        if turn.then is not None:
            await turn.then()

    def _events_after(self, cursor: str) -> Iterator[TaskEvent]:
        """Started and the present place come again, as the orchestrator tells them."""
        started, placed, *rest = self.log
        seen = [event.cursor for event in rest if event.HasField("tokens")]
        yield started
        yield placed
        yield from rest[seen.index(cursor) + 1 if cursor in seen else 0 :]
