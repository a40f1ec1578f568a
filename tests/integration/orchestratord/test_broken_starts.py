"""A worker whose frames come, and that answers each StartRun late: it is slow, and its task is not lost."""

import asyncio

import pytest

from integration.orchestratord.test_worker_link import linked
from orchestratord.core import effects, events
from orchestratord.runtime import worker_link
from support.brain_driver import BrainDriver
from unit.orchestratord.test_brain_attempts import host_of


async def test_a_worker_that_is_slow_to_start_runs_fails_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the time of calls as it is, 5 s, it fails within 15 s."""
    monkeypatch.setattr(worker_link, "_CALL_S", 0.3)
    driver = BrainDriver()
    driver.add_model("m", slots=1)
    driver.add_node("garage")
    task_id = driver.submit("m")
    spec = driver.load("m")
    assert host_of(driver, spec.worker_id) == "garage"
    posted: list[events.Event] = []
    async with linked(posted) as (_, link, _), asyncio.timeout(10):
        while events.WorkerAttached("worker-1") not in posted:
            await asyncio.sleep(0.01)
        began_at = asyncio.get_running_loop().time()
        seen = 0
        while not driver.task(task_id).is_finished and asyncio.get_running_loop().time() - began_at < 3:
            runs = driver.all_of(effects.StartRun)
            if len(runs) > seen:
                seen = len(runs)
                link.start_run(runs[-1])
            for event in [event for event in posted if isinstance(event, events.AttemptUnknown)]:
                posted.remove(event)
                driver.handle(event)
            await asyncio.sleep(0.01)
        took_s = asyncio.get_running_loop().time() - began_at
        assert not driver.task(task_id).is_finished, (seen, took_s, driver.task(task_id).terminal)
