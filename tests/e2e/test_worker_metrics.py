"""Several workers of a host serve metrics: one port in the settings, each is scraped, and Prometheus is told where."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from llama_orch.v2 import fleet_service_pb2, worker_pb2
from llorch.sdk.async_client import AsyncClient
from support.free_ports import free_port
from support.gguf_writer import smallest_model
from support.up import Up, start
from support.whole_system import wait_until

MODELS = ("one", "two", "three")
SETTINGS = """
[orchestrator]
metrics_bind = "127.0.0.1:{brain}"

[worker]
metrics_bind = "127.0.0.1:{worker}"
"""


@pytest.fixture
async def ports() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture
async def up(tmp_path: Path, ports: tuple[int, int]) -> AsyncIterator[Up]:
    (tmp_path / "settings.toml").write_text(SETTINGS.format(brain=ports[0], worker=ports[1]))
    running = await start(tmp_path, "--simulate-gpu", "RTX 3090:24GiB", "--config", str(tmp_path / "settings.toml"))
    try:
        yield running
    finally:
        if running.process.returncode is None:
            running.process.terminate()
            await running.process.wait()


async def ready(client: AsyncClient) -> list[worker_pb2.Worker]:
    state: fleet_service_pb2.State = await client.state()
    return [worker for worker in state.workers if worker.state == worker_pb2.WORKER_STATE_READY]


@pytest.mark.req("OPS-6001")
async def test_each_worker_of_a_host_is_scraped(up: Up, ports: tuple[int, int], tmp_path: Path) -> None:
    brain, first = ports
    (tmp_path / "sim.gguf").write_bytes(smallest_model())
    async with AsyncClient(await up.ready()) as client, httpx.AsyncClient(trust_env=False) as http:
        for name in MODELS:
            await client.register_model(name, f"file:{tmp_path / 'sim.gguf'}", context=256, slots=1)
            await client.load_model(name)

        async def all_are_ready() -> bool:
            return len(await ready(client)) == len(MODELS)

        await wait_until(all_are_ready, 60)
        workers = await ready(client)
        addresses = {worker.engine.metrics_address: worker.spec.model for worker in workers}
        assert len(addresses) == len(MODELS)
        assert min(int(address.rpartition(":")[2]) for address in addresses) == first
        for address, model in addresses.items():
            metrics = await http.get(f"http://{address}/metrics")
            assert f'llorch_worker_slots{{engine="sim",engine_version="1",model="{model}"}} 1.0' in metrics.text
        targets = (await http.get(f"http://127.0.0.1:{brain}/targets")).json()
        assert {target["targets"][0] for target in targets} == set(addresses)
        assert {target["labels"]["node"] for target in targets} == {workers[0].node_id}

        await client.unload_model("one")
        gone = next(address for address, model in addresses.items() if model == "one")

        async def is_gone() -> bool:
            targets = (await http.get(f"http://127.0.0.1:{brain}/targets")).json()
            return {target["targets"][0] for target in targets} == set(addresses) - {gone}

        await wait_until(is_gone, 20)
