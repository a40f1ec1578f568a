import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from structlog.testing import capture_logs

from llorch.background import TaskEndedEarly, TaskSupervisor
from llorch.errors import NotFound, Reason


async def forever() -> None:
    await asyncio.Event().wait()


async def supervise(work: Coroutine[Any, Any, Any], *, endless: bool) -> None:
    async with TaskSupervisor("owner") as tasks:
        tasks.spawn("work", work, forever=endless)
        await forever()


async def test_leaving_the_block_cancels_what_runs_and_waits_for_its_cleanup() -> None:
    cleaned_up = asyncio.Event()
    started = asyncio.Event()

    async def work() -> None:
        try:
            started.set()
            await forever()
        finally:
            await asyncio.sleep(0)
            cleaned_up.set()

    async with TaskSupervisor("owner") as tasks:
        tasks.spawn("work", work(), forever=True)
        await started.wait()
    assert cleaned_up.is_set()


async def test_a_failure_ends_the_owner_and_is_logged_under_its_name() -> None:
    async def fail() -> None:
        raise NotFound(Reason.TASK_NOT_FOUND, "no such task")

    with capture_logs() as logs, pytest.raises(ExceptionGroup) as caught:
        await supervise(fail(), endless=False)
    assert caught.value.subgroup(NotFound)
    assert [(line["event"], line["task"]) for line in logs] == [("background_task_failed", "work")]


async def test_an_early_end_of_an_endless_task_ends_the_owner() -> None:
    with capture_logs() as logs, pytest.raises(ExceptionGroup) as caught:
        await supervise(asyncio.sleep(0), endless=True)
    assert caught.value.subgroup(TaskEndedEarly)
    assert logs[0]["event"] == "background_task_ended_early"


async def test_a_task_that_may_end_gives_its_result() -> None:
    async with TaskSupervisor("owner") as tasks:
        assert await tasks.spawn("add", asyncio.sleep(0, 42)) == 42


async def test_work_that_never_began_is_closed_without_a_warning() -> None:
    work = forever()
    async with TaskSupervisor("owner") as tasks:
        tasks.spawn("work", work)
    assert work.cr_frame is None, "a closed coroutine has no frame"  # type: ignore[attr-defined]  # a Coroutine's own
