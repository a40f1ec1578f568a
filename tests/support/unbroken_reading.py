"""One task's stream as a client reads it that comes back with its cursor, and when each piece of it came."""

import asyncio
import time
from dataclasses import dataclass, field
from uuid import uuid4

import grpc

from llama_orch.v2 import task_event_pb2, task_pb2, task_service_pb2
from llama_orch.v2.task_service_pb2_grpc import TaskServiceStub
from llorch.errors import DeadlineExceeded, LlorchError, Unavailable
from llorch.rpc.client import open_stream
from llorch.rpc.status import has_broken
from support.streams import check_stream

COMES_BACK_AFTER_S = 0.1
SILENT_S = 60.0


@dataclass
class Reading:
    """Reads to the terminal, over as many connections as it takes. It knows nothing of the client library.

    `events` is what it was shown, without what each new connection begins with; `came_at` the times of those that have
    output.
    """

    channel: grpc.aio.Channel
    task: task_pb2.TaskSpec
    events: list[task_event_pb2.TaskEvent] = field(default_factory=list)
    came_at: list[float] = field(default_factory=list)
    connections: int = 0
    task_id: str = ""
    cursor: str = ""

    def __post_init__(self) -> None:
        self.task.request_id = self.task.request_id or f"r-{uuid4().hex}"

    @property
    def has_ended(self) -> bool:
        return bool(self.events) and self.events[-1].WhichOneof("event") in ("end", "error")

    @property
    def tokens(self) -> int:
        return sum(event.tokens.count for event in self.events)

    @property
    def worker_id(self) -> str:
        """Where it runs, as it was told last."""
        placed = [event.placed.worker_id for event in self.events if event.HasField("placed")]
        return placed[-1] if placed else ""

    @property
    def attempts(self) -> list[int]:
        return [event.placed.attempt for event in self.events if event.HasField("placed")]

    async def run(self) -> None:
        while not self.has_ended:
            try:
                await self._read_one_connection()
            except LlorchError as error:
                if not isinstance(error, Unavailable | DeadlineExceeded) and not has_broken(error):
                    raise
                await asyncio.sleep(COMES_BACK_AFTER_S)

    def text(self) -> str:
        """Of the whole stream, which is checked; it has ended with an answer."""
        assert self.events[-1].HasField("end"), f"task {self.task_id} ended with {self.events[-1]}"
        return check_stream(self.events)

    def gap_after(self, moment: float) -> float | None:
        """Seconds from then to the next output; None if none came after."""
        return next((came_at - moment for came_at in self.came_at if came_at > moment), None)

    async def _read_one_connection(self) -> None:
        stub = TaskServiceStub(self.channel)
        self.connections += 1
        if self.task_id:
            follow = task_service_pb2.StreamTaskRequest(task_id=self.task_id, after=self.cursor)
            async with open_stream(stub.StreamTask, follow, idle_timeout_s=SILENT_S) as followed:
                async for answer in followed:
                    self._take(answer.event)
            return
        request = task_service_pb2.GenerateRequest(task=self.task)
        async with open_stream(stub.Generate, request, idle_timeout_s=SILENT_S) as generated:
            async for said in generated:
                self._take(said.event)

    def _take(self, event: task_event_pb2.TaskEvent) -> None:
        if self.task_id and (event.HasField("started") or self._is_known_place(event)):
            return
        self.task_id = event.task_id
        self.cursor = event.cursor or self.cursor
        self.events.append(event)
        if event.HasField("tokens"):
            self.came_at.append(time.monotonic())

    def _is_known_place(self, event: task_event_pb2.TaskEvent) -> bool:
        return event.HasField("placed") and event.placed.attempt in self.attempts
