"""A GPU host as its orchestrator sees it: the whole daemon, NVIDIA's real binding, and a library that plays the driver.

No model runs here; what is shown is that the host tells the truth about its cards, whatever their driver does.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from llama_orch.v2 import device_pb2, node_link_pb2
from support.nvml_stand_in import GPU_IS_LOST, NvmlStandIn, StandInGpu, StandInProcess
from support.orchestrator_stub import OrchestratorStub, serving, snapshot_of
from support.pool_manager_process import PoolManagerProcess, pool_manager_process

OK = device_pb2.DEVICE_STATE_OK
LOST = device_pb2.DEVICE_STATE_LOST


@dataclass
class GpuHost:
    """`driver` is what the cards are now, `orchestrator` has heard of them."""

    driver: NvmlStandIn
    orchestrator: OrchestratorStub
    process: PoolManagerProcess

    def __post_init__(self) -> None:
        self.big, self.small = self.driver.gpus

    async def wait_device(self, index: int, **wanted: object) -> float:
        """Seconds until a report came, from now on, in which the device has these figures."""
        began, heard_before = time.monotonic(), len(self.orchestrator.reports)

        def tells(report: node_link_pb2.NodeReport) -> bool:
            return any(
                device.index == index and all(getattr(device, name) == value for name, value in wanted.items())
                for device in snapshot_of(report).devices
            )

        del self.orchestrator.reports[:heard_before]
        await self.orchestrator.wait_report(tells)
        return time.monotonic() - began


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[GpuHost]:
    (tmp_path / "driver").mkdir()
    big = StandInGpu("GPU-aaaa-1111", processes=[StandInProcess(1, 700, draws=True)])
    small = StandInGpu("GPU-bbbb-2222", name="NVIDIA GeForce RTX 3060", total_mib=12288, used_mib=300)
    driver = NvmlStandIn(tmp_path / "driver", big, small)
    orchestrator = OrchestratorStub()
    flags: dict[str, Any] = {
        "simulate_gpu": None,
        "pools": json.dumps({"desk": ["3060"]}),
        "reserve_mib": json.dumps({"0": 512}),
        "labels": json.dumps({"zone": "attic"}),
    }
    async with serving(orchestrator) as address, pool_manager_process(tmp_path / "node", address, **flags) as process:
        process.environment = driver.environment()
        await process.start()
        await orchestrator.wait_report(lambda report: report.report_seq == 2, within_s=20)
        yield GpuHost(driver, orchestrator, process)
        driver.show(hangs=False)


@pytest.mark.req("POOL-2001", "POOL-2007")
async def test_a_gpu_host_registers_with_its_cards_pools_reserves_and_labels(host: GpuHost) -> None:
    register = host.orchestrator.reports[0].register
    assert dict(register.labels) == {"zone": "attic"}
    big, small = register.snapshot.devices
    assert (big.device_id, big.name, big.kind) == ("GPU-aaaa-1111", "RTX 3090", device_pb2.DEVICE_KIND_CUDA)
    assert (big.memory_total_mib, big.memory_used_mib, big.reserve_mib, small.reserve_mib) == (24576, 1000, 512, 0)
    assert (big.compute_capability, big.driver_version, big.power_w) == ("8.6", "570.124.06", 123)
    assert [(process.pid, process.memory_mib, process.worker_id) for process in big.processes] == [(1, 700, "")]
    assert [(pool.pool_id, list(pool.device_ids)) for pool in register.snapshot.pools] == [
        ("garage:desk", ["GPU-bbbb-2222"]),
        ("garage", ["GPU-aaaa-1111"]),
    ]


@pytest.mark.req("POOL-2001")
async def test_memory_that_another_program_takes_is_told_within_a_second(host: GpuHost) -> None:
    took_s = []
    for used_mib in (9000, 400, 5000, 12000, 2000):
        host.small.used_mib = used_mib
        host.small.processes = [StandInProcess(2**22 + 1, used_mib - 300)]
        host.driver.show()
        took_s.append(await host.wait_device(1, memory_others_mib=used_mib))
    assert median(took_s) <= 1.0


@pytest.mark.req("POOL-2001")
async def test_a_card_that_falls_off_the_bus_is_lost_until_it_is_back_and_the_other_stays(host: GpuHost) -> None:
    host.big.error = GPU_IS_LOST
    host.driver.show()
    await host.wait_device(0, state=LOST)
    assert [device.state for device in (await host.process.snapshot()).devices] == [LOST, OK]
    host.big.error = 0
    host.driver.show()
    await host.wait_device(0, state=OK)


@pytest.mark.req("POOL-2001")
async def test_a_driver_that_hangs_costs_the_cards_and_not_the_daemon(host: GpuHost) -> None:
    host.driver.show(hangs=True)
    await host.wait_device(0, state=LOST)
    assert [device.state for device in (await host.process.snapshot(within_s=2)).devices] == [LOST, LOST]
    last = host.orchestrator.reports[-1].report_seq
    await host.orchestrator.wait_report(lambda report: report.report_seq >= last + 3)
    host.driver.show(hangs=False)
    await host.wait_device(0, state=OK)


async def test_a_daemon_whose_driver_hangs_still_ends_when_it_is_told_to(host: GpuHost) -> None:
    host.driver.show(hangs=True)
    await host.wait_device(0, state=LOST)
    assert await host.process.terminate() == 0


async def test_a_card_of_which_no_driver_tells_stops_the_start_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "driver").mkdir()
    driver = NvmlStandIn(tmp_path / "driver", StandInGpu("GPU-aaaa-1111", error=GPU_IS_LOST))
    async with pool_manager_process(tmp_path / "node", "127.0.0.1:1", simulate_gpu=None) as process:
        process.environment = driver.environment()
        await process.start()
        assert process.process is not None
        async with asyncio.timeout(20):
            assert await process.process.wait() != 0
    said = (tmp_path / "node" / "pool-managerd.log").read_text()
    assert "shows 1 that can't be used (GPU 0: GPU is lost)" in said.replace("\n", " ")
    assert "What to do: see what nvidia-smi" in said.replace("\n", " ")


@pytest.mark.req("POOL-2002")
async def test_an_engine_that_can_not_use_the_cards_is_told_at_the_start_and_stops_nothing(host: GpuHost) -> None:
    """These cards are played, so no engine can use them."""
    log = host.process.folder / "pool-managerd.log"
    async with asyncio.timeout(30):
        while not (told := [line for line in log.read_text().splitlines() if '"event": "preflight"' in line]):
            await asyncio.sleep(0.05)
    finding = next(json.loads(line) for line in told if '"check": "engine"' in line)
    assert finding["level"] == "error"
    assert finding["what_to_do"]
    assert (await host.process.snapshot()).devices[0].state == OK
