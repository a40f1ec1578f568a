"""`llorch apps`: keys are printed once and alone, and changes leave the rest as it is."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llama_orch.v2 import app_pb2
from support.fake_orchestrator import APP_KEY, FakeOrchestrator

Llorch = Callable[..., Awaitable[Any]]


async def test_the_key_of_a_new_app_is_all_that_goes_to_stdout(llorch: Llorch, fake: FakeOrchestrator) -> None:
    result = await llorch("apps", "add", "aider", "--model", "gpt-4o=coder", "--weight", "2", "--max-tasks", "4")

    assert (result.code, result.out) == (0, f"{APP_KEY}\n")
    assert "never again" in result.err
    assert fake.apps["aider"] == app_pb2.App(
        app="aider", models={"gpt-4o": "coder"}, weight=2, max_concurrent_tasks=4, key_fingerprint="0f0f0f"
    )
    assert (await llorch("apps", "add", "other", "--json")).data()["key"] == APP_KEY


@pytest.mark.parametrize("command", [("apps",), ("apps", "list")])
async def test_apps_are_listed_without_their_keys(
    llorch: Llorch, fake: FakeOrchestrator, command: tuple[str, ...]
) -> None:
    assert "llorch apps add" in (await llorch(*command)).err
    fake.apps["aider"] = app_pb2.App(
        app="aider",
        models={"gpt-4o": "coder"},
        priority="interactive",
        weight=1,
        max_tokens_per_minute=9000,
        key_fingerprint="0f0f0f",
    )

    line = (await llorch(*command)).out.splitlines()[1]
    assert " ".join(line.split()) == "aider interactive 1 0f0f0f… gpt-4o is coder, 9000 tokens a minute"
    assert (await llorch(*command, "--json")).data()["apps"][0]["app"] == "aider"
    fake.apps["aider"].problems.append("no model is called 'coder' now")
    assert "gpt-4o is coder, not met: no model is called 'coder' now, 9000" in (await llorch(*command)).out


async def test_an_update_changes_what_is_given_and_nothing_else(llorch: Llorch, fake: FakeOrchestrator) -> None:
    await llorch("apps", "add", "aider", "--model", "gpt-4o=coder", "--model", "mini=small", "--weight", "2")

    result = await llorch("apps", "update", "aider", "--model", "gpt-4o=big", "--max-tokens-per-minute", "9000")

    assert result.code == 0
    changed = fake.apps["aider"]
    assert dict(changed.models) == {"gpt-4o": "big"}
    assert (changed.weight, changed.max_tokens_per_minute) == (2, 9000)
    await llorch("apps", "update", "aider", "--max-tokens-per-minute", "0")
    assert fake.apps["aider"].max_tokens_per_minute == 0


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("add", "aider", "--model", "coder"), 2, "NAME=MODEL"),
        (("update", "aider"), 2, "give one or more of --model, --priority, --weight, --max-tasks"),
        (("update", "unknown", "--weight", "2"), 1, "the apps are: aider"),
    ],
)
async def test_what_an_app_can_not_be_is_told(
    llorch: Llorch, fake: FakeOrchestrator, arguments: tuple[str, ...], code: int, told: str
) -> None:
    fake.apps["aider"] = app_pb2.App(app="aider")

    result = await llorch("apps", *arguments)
    assert result.code == code
    assert told in result.err


async def test_an_app_is_removed(llorch: Llorch, fake: FakeOrchestrator) -> None:
    await llorch("apps", "add", "aider")

    assert (await llorch("apps", "rm", "aider")).code == 0
    assert not fake.apps
