import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from llorch.cli import main
from support.fake_orchestrator import FakeOrchestrator, serving


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    def data(self) -> Any:
        return json.loads(self.out)


Llorch = Callable[..., Awaitable[Result]]


@pytest.fixture
def fake() -> FakeOrchestrator:
    return FakeOrchestrator()


@pytest.fixture
async def address(fake: FakeOrchestrator) -> AsyncIterator[str]:
    async with serving(fake) as address:
        yield address


@pytest.fixture
def llorch(address: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Llorch:
    """Runs the command line against the fake orchestrator."""
    monkeypatch.setenv("LLORCH_ADDRESS", address)

    async def llorch(*arguments: str) -> Result:
        code = await asyncio.to_thread(main.execute, arguments)
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return llorch
