"""Many durable tasks that an orchestrator has accepted, what became of each, and readers that were there before."""

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from llama_orch.v2 import error_reason_pb2, task_pb2, task_service_pb2
from llama_orch.v2.task_event_pb2 import TaskEvent
from llorch.errors import LlorchError, Reason, Unavailable
from llorch.rpc.client import call, open_stream
from llorch.sdk.async_client import AsyncClient
from llorch.sdk.events import End, Failed, Placed, Tokens
from support.machines import Machines, wait_for
from support.placed_models import MODELS, MODELS_OF_APP
from support.streams import check_stream
from support.whole_system import task
from worker_orcd.engines.sim.tokens import sim_text

SIM = {"decode_tokens_per_s": 20}
"""With `TOKENS`, the 33 tasks of a model with four slots take at least 3 s."""
TOKENS = 8
SEED_OF_TASKS = 7
COMPLETED = "completed"

_CALL_S = 10.0
_SILENT_S = 60.0
_MOST_TASKS = 1000
_SUBMITTED_AT_ONCE = 20
_ONLY_WAITS = {"started", "narration", "heartbeat", "metrics"}


@dataclass
class AcceptedTasks:
    models: dict[str, str] = field(default_factory=dict)
    """By task id, in the order in which they were accepted."""

    @property
    def last(self) -> list[str]:
        """Of each model the task that will be the last one to begin."""
        return list({model: task_id for task_id, model in self.models.items()}.values())

    @property
    def last_but_one(self) -> list[str]:
        last = set(self.last)
        return list({model: task_id for task_id, model in self.models.items() if task_id not in last}.values())

    async def wait_done(self, client: AsyncClient, count: int) -> None:
        """Until so many of them are done, or a third of those of one model: its last ones are to wait still."""
        request = task_service_pb2.ListTasksRequest(page_size=_MOST_TASKS, state=task_pb2.TASK_STATE_COMPLETED)
        a_third = len(self.models) / len(MODELS) / 3

        async def are_done() -> bool:
            listed = await call(client._stubs.tasks.ListTasks, request, timeout_s=_CALL_S)
            done = Counter(found.model for found in listed.tasks if found.task_id in self.models)
            return done.total() >= count or max(done.values(), default=0) >= a_third

        await wait_for(are_done, f"{count} tasks to be done", every_s=0.02)


async def submit(running: Machines, key: str, count: int, chance: random.Random) -> AcceptedTasks:
    """Equally many of each model, in any order; some by the app, whose key it is."""
    wanted = [MODELS[number % len(MODELS)] for number in range(count)]
    chance.shuffle(wanted)
    accepted = AcceptedTasks()
    async with running.client() as of_owner, running.client(key) as of_app:

        async def submit_one(model: str) -> None:
            tasks = (of_app if model in MODELS_OF_APP else of_owner)._stubs.tasks
            request = task_service_pb2.SubmitTaskRequest(task=task(model=model, max_tokens=TOKENS))
            accepted.models[(await call(tasks.SubmitTask, request, timeout_s=_CALL_S)).task_id] = model

        for at in range(0, count, _SUBMITTED_AT_ONCE):
            await asyncio.gather(*map(submit_one, wanted[at : at + _SUBMITTED_AT_ONCE]))
    return accepted


class Readers:
    """Everything that reads one burst of tasks; an async context manager, which ends them all.

    Some are there before the orchestrator goes and read tasks that wait: half of them over gRPC, which go on with their
    cursor, and half by the SDK, which does so by itself. Each task is read from its beginning afterwards, too.
    """

    def __init__(self, running: Machines, accepted: AcceptedTasks, *, reconnect_for_s: float) -> None:
        self._accepted = accepted
        self._before = running.client(reconnect_for_s=reconnect_for_s)
        self._after = running.client()
        """One that has not been refused while no orchestrator was there, and so does not pause before it connects."""
        self._readers: list[asyncio.Task[None]] = []
        self._early: dict[str, list[TaskEvent]] = {task_id: [] for task_id in accepted.last}
        self._outcomes: dict[tuple[str, str], str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        await self._before.close()
        await self._after.close()

    async def begin(self) -> None:
        """Returns when all that read before have had an event."""
        for task_id in self._early:
            self._start(self._read_before(task_id))
        for task_id in self._accepted.last_but_one:
            self._start(self._read_by_sdk(task_id))

        async def are_read() -> bool:
            return all(self._early.values())

        await wait_for(are_read, "readers to begin")

    def go_on(self) -> None:
        """Once the next orchestrator serves. Cursors of tasks that had begun are void, and not asked about."""
        waited = [
            task_id
            for task_id, events in self._early.items()
            if {event.WhichOneof("event") for event in events} <= _ONLY_WAITS
        ]
        assert waited, "the test came late: no task that was read had to wait"
        for task_id in waited:
            self._start(self._read_to_end("cursor", task_id, after=self._early[task_id][-1].cursor))
        for task_id in self._accepted.models:
            self._start(self._read_to_end("task", task_id))

    async def check_completed(self, within_s: float, where: str) -> None:
        await asyncio.wait(self._readers, timeout=within_s)
        bad = Counter(
            (self._accepted.models[task_id], reader, outcome)
            for (reader, task_id), outcome in self._outcomes.items()
            if outcome != COMPLETED
        )
        told = [f"{count} of {model}, {reader}: {outcome}" for (model, reader, outcome), count in sorted(bad.items())]
        assert not told, "\n".join((where, *told))
        assert {task_id for reader, task_id in self._outcomes if reader == "task"} == self._accepted.models.keys(), (
            where
        )

    def _start(self, reader: Coroutine[Any, Any, None]) -> None:
        self._readers.append(asyncio.create_task(reader))

    async def _read_before(self, task_id: str) -> None:
        with suppress(Unavailable):
            await self._read(self._before, task_id, "", self._early[task_id])

    async def _read_to_end(self, reader: str, task_id: str, after: str = "") -> None:
        events: list[TaskEvent] = []
        self._outcomes[reader, task_id] = "not answered"
        try:
            await self._read(self._after, task_id, after, events, reader)
        except LlorchError as error:
            self._outcomes[reader, task_id] = f"refused: {error.reason}: {error.message}"
        else:
            self._outcomes[reader, task_id] = _outcome(events)

    async def _read_by_sdk(self, task_id: str) -> None:
        reader, text, had_begun = ("sdk", task_id), "", False
        self._outcomes[reader] = "never ended"
        try:
            async for event in self._before.stream(task_id):
                had_begun = had_begun or isinstance(event, Placed)
                match event:
                    case Tokens():
                        text += event.text
                    case End():
                        self._outcomes[reader] = _judged(text)
                    case Failed():
                        self._outcomes[reader] = f"failed: {event.reason}: {event.message}"
        except LlorchError as error:
            if had_begun and error.reason is Reason.STREAM_RESET:
                del self._outcomes[reader]  # as the contract has it
            else:
                self._outcomes[reader] = f"the reader gave up: {error.reason}: {error.message}"

    async def _read(
        self, client: AsyncClient, task_id: str, after: str, events: list[TaskEvent], reader: str = ""
    ) -> None:
        """A reader that has a name tells on the way what its task waits for."""
        request = task_service_pb2.StreamTaskRequest(task_id=task_id, after=after)
        async with open_stream(client._stubs.tasks.StreamTask, request, idle_timeout_s=_SILENT_S) as answers:
            async for answer in answers:
                events.append(answer.event)
                if reader:
                    said = answer.event.narration.text or answer.event.WhichOneof("event")
                    self._outcomes[reader, task_id] = f"never ended; last was: {said}"


def _outcome(events: list[TaskEvent]) -> str:
    last = events[-1]
    if last.HasField("error"):
        reason = error_reason_pb2.ErrorReason.Name(last.error.reason).removeprefix("ERROR_REASON_")
        return f"failed: {reason}: {last.error.message}"
    return _judged(check_stream(events))


def _judged(text: str) -> str:
    return COMPLETED if text == sim_text(SEED_OF_TASKS, 0, TOKENS) else f"another text: {text!r}"
