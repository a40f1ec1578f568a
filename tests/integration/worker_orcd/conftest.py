from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from support.worker_service import Served, StartWorker, serve_worker
from worker_orcd.engines.sim.parameters import SimParameters


@pytest.fixture
async def start_worker() -> AsyncIterator[StartWorker]:
    """`await start_worker(SimParameters(...), slots=...)`; several are possible."""
    async with AsyncExitStack() as opened:

        async def start(parameters: SimParameters | None = None, slots: int = 4) -> Served:
            return await opened.enter_async_context(serve_worker(parameters or SimParameters(), slots))

        yield start
