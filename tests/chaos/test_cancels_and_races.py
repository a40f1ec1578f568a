"""Cancels free their slots soon, under full load as well; and however a task's ends race, it has one.

`make chaos` takes the full counts, the suite a tenth.
"""

import asyncio
import os
import random
import signal
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
import pytest

from llama_orch.v2 import cancel_pb2, error_reason_pb2, task_event_pb2, task_pb2, task_service_pb2, worker_pb2
from llama_orch.v2.task_service_pb2_grpc import TaskServiceStub
from llorch.errors import LlorchError
from llorch.logs import get_logger
from llorch.rpc.client import call, open_channel, open_stream
from llorch.sdk.async_client import AsyncClient
from support import chaos_count
from support.machines import Machines, machines, wait_for
from support.streams import check_stream
from support.whole_system import gguf
from worker_orcd.engines.sim.tokens import sim_text

pytestmark = [pytest.mark.timeout(chaos_count.within(1200)), pytest.mark.alone]
_log = get_logger("chaos")

MODEL = "story"
HOST = "attic"
SLOTS = 8
WAITING = 8
SEED = 5
CALL_S = 10.0

CANCELS = chaos_count.of(500)
FREE_WITHIN_S = 0.25
"""From a cancel to the start of the next task in the slot: the 99th percentile."""
ENDLESS = 100_000
LONG_PROMPT = "word " * 2_000
"""Takes the engine two seconds to evaluate."""

RACES = chaos_count.of(1_000)
RACING_AT_ONCE = 20
SHORT = 12


@asynccontextmanager
async def one_host(folder: Path, **sim: object) -> AsyncIterator[tuple[Machines, AsyncClient, grpc.aio.Channel]]:
    async with machines(folder, HOST, sim={"load_s": 0.1, **sim}, cards=["RTX 3090:24GiB"]) as running:
        channel = open_channel(running.orchestrator.address, token=running.orchestrator.token)
        try:
            async with running.client() as client:
                source = f"file:{gguf(folder, 'story.gguf', context_trained=200_000)}"
                await client.register_model(MODEL, source, slots=SLOTS, context=150_000)
                await client.load_model(MODEL)
                await wait_for(partial(is_loaded, client), "the worker")
                yield running, client, channel
        finally:
            await channel.close()


async def is_loaded(client: AsyncClient) -> bool:
    return any(worker.state == worker_pb2.WORKER_STATE_READY for worker in (await client.state()).workers)


@dataclass
class Followed:
    """A task that is read, with the times of what matters."""

    channel: grpc.aio.Channel
    prompt: str = "once"
    max_tokens: int = ENDLESS
    deadline_ms: int | None = None
    task_id: str = ""
    placed_at: float | None = None
    events: list[task_event_pb2.TaskEvent] = field(default_factory=list)

    async def submit(self) -> None:
        work = task_pb2.GenerateWork(prompt=self.prompt, max_tokens=self.max_tokens)
        work.sampling.seed = SEED
        spec = task_pb2.TaskSpec(model=MODEL, generate=work, deadline_ms=self.deadline_ms)
        request = task_service_pb2.SubmitTaskRequest(task=spec)
        answer = await call(TaskServiceStub(self.channel).SubmitTask, request, timeout_s=CALL_S)
        self.task_id = answer.task_id

    async def read(self) -> None:
        request = task_service_pb2.StreamTaskRequest(task_id=self.task_id)
        async with open_stream(TaskServiceStub(self.channel).StreamTask, request) as answers:
            async for answer in answers:
                self.events.append(answer.event)
                if answer.event.HasField("placed"):
                    self.placed_at = time.monotonic()

    async def cancel(self) -> "cancel_pb2.CancelOutcome.ValueType":
        request = task_service_pb2.CancelTaskRequest(task_id=self.task_id)
        return (await call(TaskServiceStub(self.channel).CancelTask, request, timeout_s=CALL_S)).outcome

    @property
    def runs(self) -> bool:
        return self.placed_at is not None and not self.has_ended

    @property
    def has_ended(self) -> bool:
        return bool(self.events) and self.events[-1].WhichOneof("event") in ("end", "error")


@pytest.mark.req("ORCH-1006")
async def test_a_cancel_frees_its_slot_soon_in_the_queue_in_a_prompt_and_in_an_answer_under_full_load(
    tmp_path: Path,
) -> None:
    """All slots are taken by tasks without end, so that a slot is freed by a cancel alone."""
    chance = random.Random(SEED)  # noqa: S311  a schedule, no secret
    freed_s: list[float] = []
    told_s: list[float] = []
    async with (
        one_host(tmp_path, decode_tokens_per_s=100, prefill_tokens_per_s=1000) as (_, _client, channel),
        asyncio.TaskGroup() as readers,
    ):
        tasks: list[Followed] = []

        async def add() -> None:
            followed = Followed(channel, prompt=LONG_PROMPT if chance.random() < 0.2 else "once")
            await followed.submit()
            readers.create_task(followed.read())
            tasks.append(followed)

        for _ in range(SLOTS + WAITING):
            await add()
        await wait_for(lambda: _true(sum(task.runs for task in tasks) == SLOTS), "all slots to be taken")
        for _ in range(CANCELS):
            victim = chance.choice(tasks)
            was_running, waiting = victim.runs, [task for task in tasks if task.placed_at is None]
            asked_at = time.monotonic()
            await victim.cancel()
            told_s.append(time.monotonic() - asked_at)
            tasks.remove(victim)
            if was_running:
                await wait_for(partial(_one_began, waiting), "the next task", every_s=0.002)
                freed_s.append(min(task.placed_at for task in waiting if task.placed_at) - asked_at)
            await add()
        for task in tasks:
            await task.cancel()
    _log.info(
        "cancelled",
        times=CANCELS,
        freed=len(freed_s),
        median_ms=round(statistics.median(freed_s) * 1000),
        p99_ms=round(percentile(freed_s, 0.99) * 1000),
        answered_p99_ms=round(percentile(told_s, 0.99) * 1000),
    )
    assert percentile(freed_s, 0.99) <= FREE_WITHIN_S


@pytest.mark.req("ORCH-1004")
async def test_however_the_ends_of_a_task_race_it_has_exactly_one(tmp_path: Path) -> None:
    """It is done, it is cancelled, its deadline passes, and its worker is killed, all at about the same moment."""
    chance = random.Random(SEED)  # noqa: S311  a schedule, no secret
    ended: list[Followed] = []
    takes_s = SHORT / 100
    async with one_host(tmp_path, decode_tokens_per_s=100) as (_, client, channel):
        for begin in range(0, RACES, RACING_AT_ONCE):
            racing = [
                Followed(channel, max_tokens=SHORT, deadline_ms=chance.choice([None, round(1000 * takes_s) + 40]))
                for _ in range(min(RACING_AT_ONCE, RACES - begin))
            ]
            for task in racing:
                await task.submit()
            async with asyncio.TaskGroup() as group:
                for task in racing:
                    group.create_task(task.read())
                    if chance.random() < 0.5:
                        group.create_task(_cancel_after(task, chance.uniform(0.0, 3 * takes_s)))
                if chance.random() < 0.3:
                    await asyncio.sleep(chance.uniform(0.0, 2 * takes_s))  # no waiting: the moment is what varies
                    for worker in (await client.state()).workers:
                        if worker.state == worker_pb2.WORKER_STATE_READY:
                            os.kill(worker.pid, signal.SIGKILL)
            ended.extend(racing)
        counts: dict[str, int] = {}
        for task in ended:
            text = check_stream(task.events)  # exactly one terminal, at the end
            assert sim_text(SEED, 0, SHORT).startswith(text)
            again = Followed(channel, task_id=task.task_id)
            await again.read()
            assert again.events[-1] == task.events[-1], "every reader is told the same"
            kind = _kind_of(task.events[-1])
            counts[kind] = counts.get(kind, 0) + 1
    _log.info("raced", tasks=len(ended), **{kind.lower(): count for kind, count in sorted(counts.items())})
    assert len(counts) > 1, "the ends do race"


def _kind_of(terminal: task_event_pb2.TaskEvent) -> str:
    if terminal.HasField("error"):
        return error_reason_pb2.ErrorReason.Name(terminal.error.reason)
    return task_event_pb2.FinishReason.Name(terminal.end.choices[0].finish_reason)


async def _cancel_after(task: Followed, seconds: float) -> None:
    await asyncio.sleep(seconds)  # no waiting: the moment is what varies
    try:
        await task.cancel()
    except LlorchError as error:
        raise AssertionError(f"a cancel was refused: {error}") from error


async def _one_began(tasks: list[Followed]) -> bool:
    return any(task.placed_at is not None for task in tasks)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))]


async def _true(it: bool) -> bool:
    return it
