"""`llorch simulate`: the day that the README shows, as a table and as JSON."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from llama_orch.v2 import decision_pb2
from support.fake_orchestrator import FakeOrchestrator

Llorch = Callable[..., Awaitable[Any]]

ROOT = Path(__file__).resolve().parents[3]
DAY = str(ROOT / "docs/examples/a-day.toml")
SECOND = ("--add-gpu", "garage=RTX 3090:24GiB")


async def test_the_readme_shows_what_is_said(llorch: Llorch) -> None:
    said = await llorch("simulate", DAY, *SECOND)
    assert said.code == 0
    shown = (ROOT / "README.md").read_text().partition('simulate docs/examples/a-day.toml --add-gpu "garage=RTX')[2]
    block = shown.partition("\n")[2].partition("```")[0]
    assert block.split() == said.out.split()


async def test_a_day_as_it_is_has_one_figure_each(llorch: Llorch) -> None:
    said = await llorch("simulate", DAY, "--lasts", "10h")
    assert re.match(r"\d+ tasks in 10 h\. Waits are in seconds\.\n", said.out)
    assert "→" not in said.out
    assert [line.split()[0] for line in said.out.splitlines() if line[:1].islower()] == [
        "aider",
        "open-webui",
        "garage/0",
        "attic/0",
        "loads:",
    ]


async def test_json_has_all_figures_and_the_reason_where_an_app_is_never_served(llorch: Llorch) -> None:
    said = await llorch("simulate", DAY, "--lasts", "10h", "--pin", "coder=attic", "--json")
    told = said.data()
    now, then = told["now"], told["then"]
    assert told.keys() == {"tasks", "lasts_s", "now", "then"}
    assert sum(app["tasks"] for app in now["apps"].values()) == told["tasks"]
    assert (now["problems"], now["apps"]["aider"]["refused"]) == ({}, 0)
    assert then["apps"]["aider"]["refused"] == then["apps"]["aider"]["tasks"] == now["apps"]["aider"]["answered"] > 0
    assert then["apps"]["aider"]["median_s"] is None
    (problem,) = then["problems"]
    assert "the largest device that is left by rule 'coder only on attic' holds 12288 MiB" in problem
    assert [card["place"] for card in now["cards"]] == ["garage/0", "attic/0"]


async def test_a_pin_that_serves_an_app_no_more_is_seen_in_its_row(llorch: Llorch) -> None:
    said = await llorch("simulate", DAY, "--lasts", "9.2h", "--pin", "coder=attic")
    (row,) = (line for line in said.out.splitlines() if line.startswith("aider"))
    assert row.endswith(f"0 → {row.split()[1]}")
    assert " → - " in row
    assert re.search(r"^\d+ × model 'coder' needs 22528 MiB", said.out, re.MULTILINE)


def placed(task_id: str, came_at_s: int, app: str = "aider", model: str = "coder") -> decision_pb2.DecisionLog:
    asked = decision_pb2.PlacedTask(
        app=app, priority="batch", create_time=Timestamp(seconds=came_at_s), prompt_tokens=500, output_tokens=60
    )
    return decision_pb2.DecisionLog(task_id=task_id, model=model, placed_task=asked)


async def test_the_log_of_an_orchestrator_is_work_too(llorch: Llorch, fake: FakeOrchestrator) -> None:
    """A task that was placed twice came once; decisions on loads are no tasks."""
    last = 1_700_000_600
    fake.decisions = [
        decision_pb2.DecisionLog(model="coder"),
        placed("task-3", last),
        placed("task-1", last - 600),
        placed("task-2", last - 300, "new", "chat"),
        placed("task-1", last - 600),
    ]
    told = (await llorch("simulate", DAY, "--log", "--json")).data()
    assert (told["tasks"], told["lasts_s"]) == (3, 600.0)
    assert {name: app["answered"] for name, app in told["now"]["apps"].items()} == {"aider": 2, "new": 1}


async def test_a_log_without_tasks_is_no_work(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.decisions = [decision_pb2.DecisionLog(model="coder")]
    said = await llorch("simulate", DAY, "--log")
    assert (said.code, said.out) == (1, "")
    assert "knows of no task that it has placed; describe the work in the file" in said.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--pin", "coder"), "pin: 'coder' is not MODEL=PLACE"),
        (("--pin", "code=garage"), "pin: there is no model 'code'; known are chat, coder, writer"),
        (("--add-gpu", "garage=RTX 3090"), '"RTX 3090" is not NAME:SIZE'),
        (("--lasts", "8"), 'lasts: has to be a time with its unit, such as "15m"'),
        (("--instead", "none.toml"), "the settings file none.toml does not exist"),
    ],
)
async def test_a_wrong_option_is_named(llorch: Llorch, options: tuple[str, ...], told: str) -> None:
    said = await llorch("simulate", DAY, *options)
    assert (said.code, said.out) == (2, "")
    assert told in said.err
    assert len(said.err.splitlines()) == 1
