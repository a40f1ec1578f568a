"""The engine that is installed here, as the preflight sees it."""

import pytest

from llorch.device_kind import DeviceKind
from pool_managerd.devices.device import Device, OwnUse
from pool_managerd.devices.inventory import InventoryUnavailable
from pool_managerd.devices.nvml import NvmlInventory
from pool_managerd.preflight.engine import find_engine
from pool_managerd.preflight.finding import Level

pytestmark = [pytest.mark.native, pytest.mark.req("POOL-2002")]

NO_CARD = Device("GPU-nowhere", DeviceKind.CUDA, 0, "no card", 1024, 0, 0, driver_version="535.1")


async def test_the_engine_is_found_and_asked() -> None:
    finding = await find_engine([])
    assert finding.level is Level.OK, finding
    assert finding.found.startswith("llama-cpp-python 0.")


async def test_a_gpu_that_the_engine_can_not_use_is_told() -> None:
    finding = await find_engine([NO_CARD])
    assert finding.level is Level.FAILED
    assert finding.fix


@pytest.mark.gpu
async def test_the_engine_sees_every_gpu_of_this_host() -> None:
    inventory = NvmlInventory()
    try:
        inventory.open()
    except InventoryUnavailable:
        pytest.skip("no GPU")
    gpus = inventory.sample(OwnUse())
    inventory.close()
    finding = await find_engine(gpus)
    if "without GPU support" in finding.found:
        pytest.skip("no engine that was built for GPUs")
    assert finding.level is Level.OK, finding
