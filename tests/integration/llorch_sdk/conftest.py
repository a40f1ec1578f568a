from collections.abc import AsyncIterator

import pytest

from llorch import AsyncClient
from support.fake_orchestrator import FakeOrchestrator, serving


@pytest.fixture
def fake() -> FakeOrchestrator:
    return FakeOrchestrator()


@pytest.fixture
async def address(fake: FakeOrchestrator) -> AsyncIterator[str]:
    async with serving(fake) as address:
        yield address


@pytest.fixture
async def client(address: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(address, reconnect_for_s=2.0) as client:
        yield client
