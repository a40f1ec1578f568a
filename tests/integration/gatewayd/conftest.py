import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gatewayd import app
from gatewayd.settings import GatewaySettings

from .fake_orchestrator import FakeOrchestrator, running_orchestrator

StartGateway = Callable[..., Awaitable["RunningGateway"]]


@dataclass
class RunningGateway:
    address: str
    client: httpx.AsyncClient
    stop: asyncio.Event
    task: "asyncio.Task[None]"


@asynccontextmanager
async def running_gateway(orchestrator: str, directory: Path, **settings: Any) -> AsyncIterator[RunningGateway]:
    """The whole daemon in this loop, reached over a real socket."""
    stop = asyncio.Event()
    file = directory / f"address-{id(stop)}"
    chosen = {"bind": "127.0.0.1:0", **settings, "orchestrator": orchestrator, "address_file": file}
    task = asyncio.create_task(app.run(GatewaySettings(**chosen), stop))
    async with asyncio.timeout(10):
        while not file.exists():
            await asyncio.wait({task}, timeout=0.01)
            if task.done():
                task.result()
    address = file.read_text().strip()
    async with httpx.AsyncClient(base_url=f"http://{address}", timeout=10) as client:
        try:
            yield RunningGateway(address, client, stop, task)
        finally:
            stop.set()
            await task


@pytest.fixture
async def orchestrator(request: pytest.FixtureRequest) -> AsyncIterator[FakeOrchestrator]:
    """The parameter, where a test gives one: whether it offers deliveries, as all but earlier releases do."""
    async with running_orchestrator(offers_deliveries=getattr(request, "param", True)) as fake:
        yield fake


@pytest.fixture
async def start_gateway(orchestrator: FakeOrchestrator, tmp_path: Path) -> AsyncIterator[StartGateway]:
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> RunningGateway:
            return await stack.enter_async_context(
                running_gateway(settings.pop("orchestrator", orchestrator.address), tmp_path, **settings)
            )

        yield start


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    return await start_gateway()


@pytest.fixture
def client(gateway: RunningGateway) -> httpx.AsyncClient:
    return gateway.client
