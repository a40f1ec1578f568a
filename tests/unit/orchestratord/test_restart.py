"""What an orchestrator tells its brain of the tasks that an earlier one has kept."""

from dataclasses import replace
from typing import Any

import pytest

from llama_orch.v2 import run_pb2
from llorch.finish_reason import FinishReason
from orchestratord.core import events
from orchestratord.core.facts.promise import Fingerprint, Promise
from orchestratord.core.facts.task import Stopped, TaskRequest, TaskState
from orchestratord.runtime.restart import restore_tasks
from orchestratord.runtime.task_streams import TaskStreams
from orchestratord.store.interface import Ending
from support.manual_clock import ManualClock
from support.memory_store import MemoryStore

pytestmark = pytest.mark.req("ORCH-1038")

PROMISE = Promise(Fingerprint("9f86"), ("CUDA RTX 3090",), 4096)


class Told:
    """Stands for the brain's owner."""

    def __init__(self) -> None:
        self.posted: list[Any] = []

    def post(self, event: Any) -> None:
        self.posted.append(event)


def request(payload: bytes, *, deterministic: bool = False) -> TaskRequest:
    return TaskRequest("task-1", "coder", payload, "digest", 1, durable=True, deterministic=deterministic)


async def restored(kept: TaskRequest, promise: Promise | None = None) -> events.TaskRestored:
    store, told, clock = MemoryStore(), Told(), ManualClock()
    await store.save_task(kept, 0)
    await store.save_promise(kept.task_id, promise)
    await restore_tasks(store, told, TaskStreams(), clock)  # type: ignore[arg-type]  # all that is asked
    (event,) = told.posted
    assert isinstance(event, events.TaskRestored)
    return event


async def test_a_log_that_starts_over_has_an_epoch_that_no_earlier_one_had() -> None:
    """Also where the database is an older copy, which counts starts again that there were."""
    store, clock, epochs = MemoryStore(), ManualClock(), set()
    await store.save_task(request(b""), 0)
    for _ in range(3):
        streams = TaskStreams()
        await restore_tasks(store, Told(), streams, clock)  # type: ignore[arg-type]  # all that is asked
        epochs.add(streams.get("task-1").log.log_epoch)
        clock.advance(0.01)
    assert len(epochs) == 3
    assert 1 not in epochs


async def test_a_finished_log_keeps_its_epoch() -> None:
    store, streams = MemoryStore(), TaskStreams()
    await store.save_task(request(b""), 0)
    ending = Ending(TaskState.CANCELLED, Stopped(FinishReason.CANCELLED, 0, 0), b"", 1, log_epoch=77)
    await store.save_ending("task-1", ending)
    await restore_tasks(store, Told(), streams, ManualClock())  # type: ignore[arg-type]  # all that is asked
    assert streams.get("task-1").log.log_epoch == 77


async def test_a_promise_comes_back_with_its_task() -> None:
    event = await restored(request(b"", deterministic=True), PROMISE)
    assert (event.request.deterministic, event.promise) == (True, PROMISE)


@pytest.mark.parametrize("is_so", [True, False])
async def test_of_tasks_of_an_earlier_release_the_work_says_whether_they_are_deterministic(is_so: bool) -> None:
    kept = request(run_pb2.RunSpec(deterministic=is_so).SerializeToString())
    event = await restored(kept)
    assert event.request == replace(kept, deterministic=is_so)
    assert event.promise is None


async def test_work_that_can_not_be_read_keeps_no_orchestrator_from_starting() -> None:
    kept = request(b"\x00no work\xff")
    assert (await restored(kept)).request == kept
