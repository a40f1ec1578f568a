import pytest

from llorch.errors import FailedPrecondition, InvalidArgument, Reason
from pool_managerd.devices.choose import open_inventory
from pool_managerd.devices.device import DeviceKind, OwnUse
from pool_managerd.devices.inventory import DeviceInventory
from pool_managerd.devices.simulated import parse_simulated_gpu


class NoDriver:
    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None:  # noqa: N802
        raise self.NVMLError("NVML Shared Library Not Found")


def kinds(inventory: DeviceInventory) -> list[DeviceKind]:
    return [device.kind for device in inventory.sample(OwnUse())]


@pytest.mark.req("POOL-2001", "POOL-2002")
def test_no_gpu_and_nothing_else_allowed_says_what_was_looked_for_found_and_what_to_do() -> None:
    with pytest.raises(FailedPrecondition) as refused:
        open_inventory(simulate_gpu=[], allow_cpu=False, nvml_binding=NoDriver())
    assert refused.value.reason is Reason.NO_DEVICE
    for words in ("NVML Shared Library Not Found", "install the NVIDIA driver", "--cpu", '--simulate-gpu "RTX 3090'):
        assert words in refused.value.message


@pytest.mark.req("POOL-2001")
def test_the_cpu_is_a_device_only_where_it_is_allowed() -> None:
    inventory = open_inventory(simulate_gpu=[], allow_cpu=True, nvml_binding=NoDriver())
    assert kinds(inventory) == [DeviceKind.CPU]


@pytest.mark.req("POOL-2001")
def test_simulated_devices_stand_alone() -> None:
    inventory = open_inventory(simulate_gpu=["A:1GiB", "B:2GiB"], allow_cpu=True)
    assert kinds(inventory) == [DeviceKind.SIMULATED, DeviceKind.SIMULATED]


@pytest.mark.parametrize(
    ("text", "name", "memory_mib"),
    [
        ("RTX 3090:24GiB", "RTX 3090", 24576),
        ("RTX 3060 : 12G", "RTX 3060", 12288),
        ("odd:name:512MiB", "odd:name", 512),
        ("half:0.5GiB", "half", 512),
        ("decimal:1GB", "decimal", 953),
    ],
)
def test_simulated_gpus_are_read_from_name_and_size(text: str, name: str, memory_mib: int) -> None:
    gpu = parse_simulated_gpu(text)
    assert (gpu.name, gpu.memory_mib) == (name, memory_mib)


@pytest.mark.parametrize("text", ["", "RTX 3090", ":24GiB", "RTX 3090:24", "RTX 3090:lots", "RTX 3090:0MiB"])
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidArgument, match="simulate_gpu"):
        parse_simulated_gpu(text)
