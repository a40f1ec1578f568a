"""An orchestrator that was started again serves accepted tasks in the order in which it would have served them."""

from pathlib import Path
from random import Random

import pytest

from orchestratord.core import effects, events
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.task import TaskRequest
from orchestratord.runtime.restart import restore_tasks
from orchestratord.runtime.task_streams import TaskStreams
from orchestratord.store.sqlite import open_sqlite
from support.brain_driver import BrainDriver
from support.manual_clock import ManualClock

TASKS = 60
APPS = {"aider": 1.0, "cline": 3.0}


def brain() -> BrainDriver:
    driver = BrainDriver()
    for name, weight in APPS.items():
        driver.handle(events.AppDefined(App(name, weight=weight)))
    driver.add_model(slots=1)
    return driver


def requests() -> list[TaskRequest]:
    chance = Random(5)  # noqa: S311  made up, not secret
    return [
        TaskRequest(
            f"task-{chance.randrange(10**9)}",
            "coder",
            b"",
            "digest",
            1,
            durable=True,
            app=chance.choice(("", *APPS)),
            priority=chance.choice(("interactive", "batch")),
            max_tokens=chance.choice((5, 50)),
        )
        for _ in range(TASKS)
    ]


def served(driver: BrainDriver) -> list[str]:
    """The model is there, with room for one at a time."""
    driver.load(slots=1)
    order: list[str] = []
    while len(started := driver.all_of(effects.StartRun)) > len(order):
        order.append(started[-1].request.task_id)
        driver.finish_attempt(started[-1].attempt_id)
    return order


class Owner:
    """Stands for the brain's owner, before its brain."""

    def __init__(self, driver: BrainDriver) -> None:
        self.post = driver.handle


@pytest.mark.req("ORCH-1009")
async def test_classes_apps_and_arrival_count_as_before_whatever_the_clock_said(tmp_path: Path) -> None:
    """The clock of the machine stands still at times, and is set back."""
    accepted, chance = requests(), Random(6)  # noqa: S311  the same
    store = open_sqlite(tmp_path)
    await store.begin_incarnation()
    before, at_ms = brain(), 1_000_000
    before.add_node()
    for request in accepted:
        before.handle(events.TaskSubmitted(request))
        await store.save_task(request, at_ms)
        at_ms += chance.choice((-5000, 0, 0, 1))
    after = brain()
    after.handle(events.RecoveryBegan())
    waiting = await restore_tasks(store, Owner(after), TaskStreams(), ManualClock())  # type: ignore[arg-type]  # enough
    await store.close()
    after.add_node()
    assert waiting == TASKS
    order = served(before)
    assert len(order) == TASKS
    assert order != [request.task_id for request in accepted]
    assert served(after) == order
