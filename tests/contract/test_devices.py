"""One suite over every device inventory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from pool_managerd.devices.cpu import CpuInventory
from pool_managerd.devices.device import Device, DeviceKind, DeviceState, OwnUse
from pool_managerd.devices.inventory import CombinedInventory, DeviceInventory, InventoryUnavailable
from pool_managerd.devices.nvml import NvmlInventory
from pool_managerd.devices.simulated import SimulatedGpu, SimulatedInventory

MIB = 2**20


class NVMLError(Exception):
    pass


@dataclass
class FakeGpu:
    uuid: str
    total_mib: int = 24576
    used_mib: int = 1000
    processes: dict[int, int | None] = field(default_factory=dict)
    lost: bool = False
    passively_cooled: bool = False


class FakeNvml:
    """The functions of `pynvml` that the inventory calls, over made-up cards."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, gpus: Sequence[FakeGpu], *, broken: str = "") -> None:
        self.gpus = list(gpus)
        self.broken = broken
        self.open_count = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise NVMLError(self.broken)
        self.open_count += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open_count -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "570.1"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:  # noqa: N802
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:  # noqa: N802
        return gpu.uuid

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> bytes:  # noqa: N802
        return b"NVIDIA GeForce RTX 3090"

    def nvmlDeviceGetCudaComputeCapability(self, gpu: FakeGpu) -> tuple[int, int]:  # noqa: N802
        return (8, 6)

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> Any:  # noqa: N802
        if gpu.lost:
            raise NVMLError("GPU is lost")
        free = gpu.total_mib - gpu.used_mib
        return SimpleNamespace(total=gpu.total_mib * MIB, used=gpu.used_mib * MIB, free=free * MIB)

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: FakeGpu) -> list[Any]:  # noqa: N802
        if gpu.lost:
            raise NVMLError("GPU is lost")
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=None if mib is None else mib * MIB)
            for pid, mib in gpu.processes.items()
        ]

    def nvmlDeviceGetUtilizationRates(self, gpu: FakeGpu) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=37)

    def nvmlDeviceGetTemperature(self, gpu: FakeGpu, sensor: int) -> int:  # noqa: N802
        if gpu.passively_cooled:
            raise NVMLError("Not Supported")
        return 55

    def nvmlDeviceGetPowerUsage(self, gpu: FakeGpu) -> int:  # noqa: N802
        return 123_456


def nvml(*gpus: FakeGpu) -> NvmlInventory:
    return NvmlInventory({gpu.uuid: 512 for gpu in gpus}, FakeNvml(gpus))


def simulated() -> SimulatedInventory:
    return SimulatedInventory([SimulatedGpu("RTX 3090", 24576), SimulatedGpu("RTX 3060", 12288)], {"sim-1": 256})


def cpu() -> CpuInventory:
    return CpuInventory({"cpu": 1024})


def both() -> CombinedInventory:
    return CombinedInventory([nvml(FakeGpu("GPU-a")), cpu()])


@pytest.fixture(params=[lambda: nvml(FakeGpu("GPU-a"), FakeGpu("GPU-b")), simulated, cpu, both])
def inventory(request: pytest.FixtureRequest) -> Iterator[DeviceInventory]:
    made: DeviceInventory = request.param()
    made.open()
    yield made
    made.close()


@pytest.mark.req("POOL-2001")
def test_every_device_has_a_unique_id_a_name_and_memory(inventory: DeviceInventory) -> None:
    devices = inventory.sample(OwnUse())
    assert devices
    assert len({device.device_id for device in devices}) == len(devices)
    for device in devices:
        assert device.name
        assert device.memory_total_mib > 0
        assert device.state is DeviceState.OK


@pytest.mark.req("POOL-2001")
def test_memory_figures_agree_with_one_another(inventory: DeviceInventory) -> None:
    for device in inventory.sample(OwnUse()):
        assert 0 <= device.memory_used_mib <= device.memory_total_mib
        assert 0 <= device.used_by_others_mib <= device.memory_used_mib
        assert device.memory_free_mib <= device.memory_total_mib


def test_samples_list_the_same_devices_in_the_same_order(inventory: DeviceInventory) -> None:
    first, second = inventory.sample(OwnUse()), inventory.sample(OwnUse())
    assert [device.device_id for device in first] == [device.device_id for device in second]


@pytest.mark.req("POOL-2001")
def test_memory_of_own_workers_is_not_counted_as_that_of_others(inventory: DeviceInventory) -> None:
    for device in inventory.sample(OwnUse()):
        own = OwnUse(memory_mib={device.device_id: 10**9})
        again = {other.device_id: other for other in inventory.sample(own)}
        assert again[device.device_id].used_by_others_mib == 0


def test_only_real_gpus_are_unmarked(inventory: DeviceInventory) -> None:
    for device in inventory.sample(OwnUse()):
        assert bool(device.marks) == (device.kind is not DeviceKind.CUDA)


def test_the_reserve_of_the_owner_is_shown_and_not_subtracted(inventory: DeviceInventory) -> None:
    devices = inventory.sample(OwnUse())
    assert any(device.reserve_mib for device in devices)


def test_a_process_that_never_was_holds_no_memory(inventory: DeviceInventory) -> None:
    assert not inventory.holds_memory(2**22 + 1)


def test_closing_twice_does_no_harm(inventory: DeviceInventory) -> None:
    inventory.close()
    inventory.close()


def only(inventory: DeviceInventory, own: OwnUse | None = None) -> Device:
    (device,) = inventory.sample(own or OwnUse())
    return device


def opened(gpu: FakeGpu) -> NvmlInventory:
    inventory = nvml(gpu)
    inventory.open()
    return inventory


def test_nvml_tells_what_the_driver_says() -> None:
    device = only(opened(FakeGpu("GPU-a")))
    assert (device.device_id, device.name, device.kind) == ("GPU-a", "NVIDIA GeForce RTX 3090", DeviceKind.CUDA)
    assert (device.compute_capability, device.driver_version) == ("8.6", "570.1")
    assert (device.utilisation_percent, device.temperature_c, device.power_w) == (37, 55, 123)


@pytest.mark.req("POOL-2001")
def test_nvml_tells_our_processes_from_those_of_others() -> None:
    inventory = opened(FakeGpu("GPU-a", used_mib=9000, processes={11: 6000, 99: 2500}))
    assert only(inventory, OwnUse(pids=frozenset({11}))).used_by_others_mib == 3000


def test_where_the_driver_knows_no_figure_the_workers_own_measurement_counts() -> None:
    inventory = opened(FakeGpu("GPU-a", used_mib=9000, processes={11: None}))
    own = OwnUse(pids=frozenset({11}), memory_mib={"GPU-a": 8000})
    assert only(inventory, own).used_by_others_mib == 1000


@pytest.mark.req("POOL-2001")
def test_a_gpu_that_falls_off_the_bus_is_lost_and_the_others_stay() -> None:
    broken, fine = FakeGpu("GPU-a"), FakeGpu("GPU-b")
    inventory = nvml(broken, fine)
    inventory.open()
    broken.lost = True
    states = [device.state for device in inventory.sample(OwnUse())]
    assert states == [DeviceState.LOST, DeviceState.OK]
    assert not inventory.holds_memory(1)
    broken.lost = False
    assert inventory.sample(OwnUse())[0].state is DeviceState.OK


def test_a_card_without_a_sensor_is_still_a_card() -> None:
    device = only(opened(FakeGpu("GPU-a", passively_cooled=True)))
    assert device.temperature_c is None
    assert device.state is DeviceState.OK


@pytest.mark.req("POOL-2003")
def test_nvml_knows_whether_a_process_still_holds_memory() -> None:
    gpu = FakeGpu("GPU-a", processes={11: 6000})
    inventory = opened(gpu)
    assert inventory.holds_memory(11)
    gpu.processes.clear()
    assert not inventory.holds_memory(11)


def test_a_driver_that_fails_at_the_start_says_why() -> None:
    with pytest.raises(InventoryUnavailable, match="Driver/library version mismatch"):
        NvmlInventory({}, FakeNvml([], broken="Driver/library version mismatch")).open()


def test_a_driver_without_a_card_is_given_back() -> None:
    binding = FakeNvml([])
    with pytest.raises(InventoryUnavailable, match="shows no GPU"):
        NvmlInventory({}, binding).open()
    assert binding.open_count == 0


def test_the_real_binding_is_asked_and_answers_plainly_without_a_driver() -> None:
    pytest.importorskip("pynvml", reason="the extra `gpu` is not installed")
    found = what_nvml_finds(NvmlInventory({}))
    assert found
    assert isinstance(found[0], Device) or "NVML" in found[0]


def what_nvml_finds(inventory: NvmlInventory) -> Sequence[Device | str]:
    try:
        inventory.open()
    except InventoryUnavailable as exc:
        return [str(exc)]
    devices = inventory.sample(OwnUse())
    inventory.close()
    return devices


def test_simulated_memory_is_used_by_what_workers_hold() -> None:
    first, second = simulated().sample(OwnUse(memory_mib={"sim-1": 4096}))
    assert (first.memory_used_mib, second.memory_used_mib) == (0, 4096)
    assert second.memory_free_mib == 12288 - 4096


def test_a_container_limit_bounds_the_memory_of_the_cpu(tmp_path: Any) -> None:
    (tmp_path / "memory.max").write_text(f"{64 * MIB}\n")
    (tmp_path / "memory.current").write_text(f"{40 * MIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {10 * MIB}\n")
    inventory = CpuInventory({}, cgroup_root=tmp_path)
    inventory.open()
    device = only(inventory)
    assert (device.memory_total_mib, device.memory_used_mib) == (64, 30)
