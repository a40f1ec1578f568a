"""What a worker reports to its pool manager, whose calls it takes, and when it gives its pool manager up."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llama_orch.v2 import worker_service_pb2
from llorch.auth import BearerAuth
from llorch.rpc.client import call
from llorch.rpc.server import RpcServer
from support.worker_alone import (
    POOL_MANAGER,
    PoolManager,
    StartProcess,
    connect,
    serve_pool_manager,
    worker_processes,
)


@pytest.fixture
async def start_process(tmp_path: Path) -> AsyncIterator[StartProcess]:
    async with worker_processes(tmp_path) as start:
        yield start


@pytest.mark.req("POOL-2005")
async def test_a_worker_tells_how_its_load_goes_and_where_it_listens(start_process: StartProcess) -> None:
    async with serve_pool_manager() as manager:
        worker = await start_process(ready_address=manager.address, orphan_grace_s="1", sim={"load_s": 0.8})
        first = await manager.report(loading=True)
        assert first.address.startswith("127.0.0.1:")
        await manager.report()
        shares = [report.load_progress for report in manager.reports if report.loading]
        assert shares == sorted(shares)
        assert shares[-1] > 0
        worker.process.terminate()
        assert (await worker.exit())[0] == 0


@pytest.mark.req("POOL-2005")
async def test_a_pool_manager_that_does_not_know_the_worker_is_not_its_own(start_process: StartProcess) -> None:
    """Another one may have the address by now: its refusals do not keep an orphan alive."""
    stranger = RpcServer(name="pool", bind="127.0.0.1:0", authenticator=BearerAuth("other"))
    manager = PoolManager()
    stranger.add(POOL_MANAGER, manager.add_to_server, manager)
    address = await stranger.start()
    try:
        worker = await start_process(ready_address=address, orphan_grace_s="1")
        assert (await worker.exit())[0] == 0
    finally:
        await stranger.stop(grace_s=0.0)
    assert manager.reports == []


@pytest.mark.req("POOL-2005")
async def test_an_orphan_does_not_wait_for_a_load_that_hangs(start_process: StartProcess) -> None:
    async with serve_pool_manager() as manager:
        worker = await start_process(ready_address=manager.address, orphan_grace_s="1", sim={"load_s": 600})
        await manager.report(loading=True)
    assert (await worker.exit())[0] == 0


@pytest.mark.req("POOL-2005")
@pytest.mark.parametrize("load_s", [0.0, 600.0])
async def test_a_worker_that_is_adopted_says_who_it_is_and_reports_to_its_new_pool_manager(
    start_process: StartProcess, load_s: float
) -> None:
    async with serve_pool_manager() as before:
        await start_process(ready_address=before.address, sim={"load_s": load_s})
        told = await before.report(loading=load_s > 0)
    async with serve_pool_manager() as manager, connect(told.address) as stub:
        request = worker_service_pb2.AdoptRequest(ready_address=manager.address)
        answer = await call(stub.Adopt, request, timeout_s=5)
        assert (answer.worker_id, answer.HasField("engine")) == ("w1", load_s == 0)
        assert (await manager.report(loading=load_s > 0)).worker_id == "w1"
