"""The inventory of a host that really has GPUs, beside what `nvidia-smi` says of them (`make test-gpu`)."""

import shutil
import subprocess

import pytest

from pool_managerd.devices.deadline import DeadlineInventory
from pool_managerd.devices.device import DeviceState, OwnUse
from pool_managerd.devices.nvml import NvmlInventory

pytestmark = pytest.mark.gpu

CLOSE_MIB = 64  # memory moves between two looks


@pytest.fixture
def shown_by_nvidia_smi() -> list[list[str]]:
    if shutil.which("nvidia-smi") is None:
        pytest.skip("no GPU")
    fields = "index,uuid,name,memory.total,memory.used,compute_cap,driver_version"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode or not listed.stdout.strip():
        pytest.skip("no GPU")
    return [line.split(", ") for line in listed.stdout.strip().splitlines()]


@pytest.mark.req("POOL-2001")
def test_the_inventory_agrees_with_nvidia_smi(shown_by_nvidia_smi: list[list[str]]) -> None:
    inventory = DeadlineInventory(NvmlInventory())
    inventory.open()
    devices = inventory.sample(OwnUse())
    inventory.close()
    assert [device.device_id for device in devices] == [uuid for _, uuid, *_ in shown_by_nvidia_smi]
    for device, (index, _, name, total, used, capability, driver) in zip(devices, shown_by_nvidia_smi, strict=True):
        assert (device.index, device.compute_capability, device.driver_version) == (int(index), capability, driver)
        assert name.endswith(device.name)
        assert abs(device.memory_total_mib - int(total)) <= 1
        # nvidia-smi leaves out what the driver keeps for itself, which no program can allocate.
        assert int(used) - CLOSE_MIB <= device.memory_used_mib <= device.memory_total_mib
        assert device.state is DeviceState.OK
        assert device.temperature_c is not None
