"""`llorch simulate`: the day that the README shows, as a table and as JSON."""

import re
import sys
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
SETTINGS = Path(DAY).read_text()
SECOND = ("--add-gpu", "garage=RTX 3090:24GiB")


async def test_the_readme_shows_what_is_said(llorch: Llorch) -> None:
    said = await llorch("simulate", DAY, *SECOND)
    assert said.code == 0
    shown = (ROOT / "README.md").read_text().partition('simulate docs/examples/a-day.toml --add-gpu "garage=RTX')[2]
    block = shown.partition("\n")[2].partition("```")[0]
    assert block.split() == said.out.split()


async def test_a_day_as_it_is_has_one_figure_each(llorch: Llorch) -> None:
    said = await llorch("simulate", DAY, "--lasts", "10h")
    assert re.match(r"\d+ tasks in 10 h\.\nWAIT is until a task starts", said.out)
    assert "→" not in said.out
    assert [line.split()[0] for line in said.out.splitlines() if line[:1].islower()] == [
        "aider",
        "open-webui",
        "garage/0",
        "attic/0",
        "loads:",
    ]


async def test_json_has_all_figures(llorch: Llorch) -> None:
    said = await llorch("simulate", DAY, "--lasts", "10h", "--pin", "coder=attic", "--pin", "coder=garage", "--json")
    told = said.data()
    assert told.keys() == {"tasks", "lasts_s", "now", "then"}
    for moment in ("now", "then"):
        one = told[moment]
        assert sum(app["tasks"] for app in one["apps"].values()) == told["tasks"]
        assert all(app["answered"] == app["tasks"] for app in one["apps"].values())
        assert (one["problems"], one["loads"] > 0) == ([], True)
        assert [card["place"] for card in one["cards"]] == ["garage/0", "attic/0"]
        assert 0 < one["cards"][0]["busy"] < one["cards"][0]["held"] < 1
    documented = (ROOT / "docs/cli.md").read_text()
    keys = {*told, *told["now"], *told["now"]["cards"][0], *told["now"]["apps"]["aider"]}
    assert [key for key in keys if f"`{key}`" not in documented] == []


async def test_an_app_that_is_never_served_is_seen_in_its_row_and_the_reason_below(
    llorch: Llorch, tmp_path: Path
) -> None:
    """The file that is tried instead has another model, and no machines of its own."""
    other = tmp_path / "other.toml"
    settings = SETTINGS.partition("[simulate.hosts")[0]
    other.write_text(settings.replace('vram_claim = "22GiB"', 'vram_claim = "60GiB"'))
    said = await llorch("simulate", DAY, "--lasts", "9.2h", "--instead", str(other))
    (row,) = (line for line in said.out.splitlines() if line.startswith("aider"))
    assert row.endswith(f"0 → {row.split()[1]}")
    assert " → - " in row
    assert re.search(r"^as it would be: \d+ × model 'coder' needs 61440 MiB", said.out, re.MULTILINE)


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
        placed("task-2", last - 300, "open-webui", "chat"),
        placed("task-1", last - 600),
    ]
    told = (await llorch("simulate", DAY, "--log", "--json")).data()
    assert (told["tasks"], told["lasts_s"]) == (3, 600.0)
    assert {name: app["answered"] for name, app in told["now"]["apps"].items()} == {"aider": 2, "open-webui": 1}


async def test_a_log_of_an_app_that_the_file_does_not_have_is_refused(llorch: Llorch, fake: FakeOrchestrator) -> None:
    fake.decisions = [placed("task-1", 1_700_000_000, app="new")]
    said = await llorch("simulate", DAY, "--log")
    assert (said.code, said.out) == (2, "")
    assert "has no [apps.new], of which there is work" in said.err


async def test_a_simulation_that_breaks_is_no_fault_of_the_file(
    llorch: Llorch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    said = await llorch("simulate", DAY)
    assert (said.code, "the simulation failed, with code 1" in said.err) == (1, True)


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
        (("--add-gpu", "garage=rtx3090:24GiB"), "add_gpu: how fast 'rtx3090' is, is not known; near are RTX 3090"),
        (("--pin", "coder=garage/4090"), "node 'garage' has no GPU that '4090' means; it has: 0 (RTX 3090"),
        (("--pin", "coder=attic"), "model 'coder' needs 22528 MiB"),
        (("--lasts", "8"), 'lasts: has to be a time with its unit, such as "15m"'),
        (("--lasts", "-1h"), 'lasts: has to be a time with its unit, such as "15m"'),
        (("--lasts", "0h"), "lasts: has to be above 0, and at most 31d"),
        (("--lasts", "8h", "--log"), "lasts: follows from the log"),
        (("--instead", "none.toml"), "file 'none.toml' does not exist"),
    ],
)
async def test_a_wrong_option_is_named(llorch: Llorch, options: tuple[str, ...], told: str) -> None:
    said = await llorch("simulate", DAY, *options)
    assert (said.code, said.out) == (2, "")
    assert told in said.err
    assert len(said.err.splitlines()) == 1
