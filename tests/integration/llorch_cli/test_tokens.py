import io
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from support.fake_orchestrator import FakeOrchestrator

Llorch = Callable[..., Awaitable[Any]]


async def test_tokens_prints_how_many_of_how_many(llorch: Llorch, fake: FakeOrchestrator) -> None:
    result = await llorch("tokens", "smollm2", "Name three colours.", "--system", "Brief.")
    assert (result.code, result.out, result.err) == (0, "5 of 8192 tokens\n", "")
    assert [message.role for message in fake.tasks_seen[0].generate.chat.messages] == ["system", "user"]
    fake.context = None
    assert (await llorch("tokens", "smollm2", "Hi")).out == "5 tokens\n"


async def test_tokens_as_json(llorch: Llorch) -> None:
    assert (await llorch("tokens", "smollm2", "Hi", "--json")).data() == {"tokens_in": 5, "context": 8192}


async def test_a_plain_prompt_comes_from_stdin(
    llorch: Llorch, fake: FakeOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("<|im_start|>"))
    await llorch("tokens", "smollm2", "-", "--raw", "--control-tokens")
    work = fake.tasks_seen[0].generate
    assert (work.prompt, work.control_tokens) == ("<|im_start|>", True)


async def test_an_unknown_model_is_told_with_the_nearest_name(llorch: Llorch) -> None:
    result = await llorch("tokens", "smolm2", "Hi")
    assert (result.code, result.out) == (1, "")
    assert "smollm2" in result.err
