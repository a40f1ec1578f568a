"""One suite over every device inventory; NVIDIA's is asked through its real binding, over a library of our own."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from llorch.device_kind import DeviceKind
from llorch.simulated_gpu import SimulatedGpu
from pool_managerd.devices.cpu import CpuInventory
from pool_managerd.devices.deadline import DeadlineInventory
from pool_managerd.devices.device import Device, DeviceProcess, DeviceState, OwnUse, ThrottleReason
from pool_managerd.devices.inventory import CombinedInventory, DeviceInventory, InventoryUnavailable
from pool_managerd.devices.nvml import NvmlInventory
from pool_managerd.devices.nvml_processes import sees_host_processes
from pool_managerd.devices.simulated import SimulatedInventory
from support.nvml_stand_in import (
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    NO_PERMISSION,
    UNKNOWN_ERROR,
    VERSION_MISMATCH,
    NvmlStandIn,
    StandInGpu,
    StandInProcess,
)

MIB = 2**20


def nvml(folder: Path) -> DeviceInventory:
    return NvmlInventory(NvmlStandIn(folder, StandInGpu("GPU-a"), StandInGpu("GPU-b")).binding())


def simulated(_: Path) -> DeviceInventory:
    return SimulatedInventory([SimulatedGpu("RTX 3090", 24576), SimulatedGpu("RTX 3060", 12288)])


def cpu(_: Path) -> DeviceInventory:
    return CpuInventory()


def both(folder: Path) -> DeviceInventory:
    return CombinedInventory([DeadlineInventory(nvml(folder)), cpu(folder)])


@pytest.fixture(params=[nvml, simulated, cpu, both])
def inventory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DeviceInventory]:
    make: Callable[[Path], DeviceInventory] = request.param
    made = make(tmp_path)
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


def test_samples_list_the_same_devices_in_the_same_order(inventory: DeviceInventory) -> None:
    first, second = inventory.sample(OwnUse()), inventory.sample(OwnUse())
    assert [device.device_id for device in first] == [device.device_id for device in second]


def test_figures_that_are_seldom_asked_for_stay_until_they_are_asked_for_again(inventory: DeviceInventory) -> None:
    first, second = inventory.sample(OwnUse()), inventory.sample(OwnUse())
    assert [device.temperature_c for device in first] == [device.temperature_c for device in second]


@pytest.mark.req("POOL-2001")
def test_memory_of_own_workers_is_not_counted_as_that_of_others(inventory: DeviceInventory) -> None:
    for device in inventory.sample(OwnUse()):
        own = OwnUse(memory_mib={device.device_id: 10**9})
        again = {other.device_id: other for other in inventory.sample(own)}
        assert again[device.device_id].used_by_others_mib == 0


def test_only_real_gpus_are_unmarked(inventory: DeviceInventory) -> None:
    for device in inventory.sample(OwnUse()):
        assert bool(device.marks) == (device.kind is not DeviceKind.CUDA)


def test_a_process_that_never_was_holds_no_memory(inventory: DeviceInventory) -> None:
    assert not inventory.holds_memory(2**22 + 1)


def test_closing_twice_does_no_harm(inventory: DeviceInventory) -> None:
    inventory.close()
    inventory.close()


class Host:
    """A machine with GPUs, and the inventory that looks at them."""

    def __init__(
        self,
        folder: Path,
        *gpus: StandInGpu,
        host_pids: bool = True,
        process_lists: bool = True,
        deadline_s: float | None = None,
    ) -> None:
        self.library = NvmlStandIn(folder, *gpus, process_lists=process_lists)
        self.inventory: DeviceInventory = NvmlInventory(self.library.binding(), host_pids=host_pids)
        if deadline_s is not None:
            self.inventory = DeadlineInventory(self.inventory, open_within_s=5.0, answer_within_s=deadline_s)
        self.inventory.open()

    def device(self, own: OwnUse | None = None) -> Device:
        (device,) = self.inventory.sample(own or OwnUse())
        return device

    def states(self) -> list[DeviceState]:
        return [device.state for device in self.inventory.sample(OwnUse())]


OWN = OwnUse(pids={11: "w-1"}, memory_mib={"GPU-a": 5000})


@pytest.mark.req("POOL-2001")
def test_nvml_tells_what_the_driver_says(tmp_path: Path) -> None:
    device = Host(tmp_path, StandInGpu("GPU-a", ecc_errors=2, throttle_bits=0x04)).device()
    assert (device.device_id, device.name, device.kind) == ("GPU-a", "RTX 3090", DeviceKind.CUDA)
    assert (device.compute_capability, device.driver_version) == ("8.6", "570.124.06")
    assert (device.memory_total_mib, device.memory_used_mib) == (24576, 1000)
    assert (device.utilisation_percent, device.temperature_c, device.power_w) == (37, 55, 123)
    assert (device.ecc_errors, device.throttle_reasons) == (2, (ThrottleReason.POWER,))


@pytest.mark.req("POOL-2001")
def test_a_gpu_that_shares_the_memory_of_its_host_has_that_and_can_be_lost(tmp_path: Path) -> None:
    gpu = StandInGpu("GPU-a", name="NVIDIA GB10", total_mib=None)
    host = Host(tmp_path, gpu)
    assert host.device().memory_total_mib == psutil.virtual_memory().total // MIB
    gpu.error = GPU_IS_LOST
    host.library.show()
    assert host.states() == [DeviceState.LOST]


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        (0x01 | 0x02 | 0x100, ()),
        (0x20, (ThrottleReason.HEAT,)),
        (0x40 | 0x08, (ThrottleReason.HEAT,)),
        (0x80 | 0x08, (ThrottleReason.POWER,)),
        (0x04 | 0x20, (ThrottleReason.HEAT, ThrottleReason.POWER)),
        (0x08, (ThrottleReason.HARDWARE,)),
    ],
)
def test_clocks_are_held_down_by_heat_by_power_or_by_something_else(
    tmp_path: Path, bits: int, reasons: tuple[ThrottleReason, ...]
) -> None:
    assert Host(tmp_path, StandInGpu("GPU-a", throttle_bits=bits)).device().throttle_reasons == reasons


def test_a_card_without_sensors_is_still_a_card(tmp_path: Path) -> None:
    bare = StandInGpu("GPU-a", utilisation_percent=None, temperature_c=None, power_mw=None, throttle_bits=None)
    device = Host(tmp_path, bare).device()
    assert (device.utilisation_percent, device.temperature_c, device.power_w, device.ecc_errors) == (None,) * 4
    assert device.throttle_reasons == ()
    assert device.state is DeviceState.OK


@pytest.mark.req("POOL-2001")
def test_programs_are_told_by_their_pids_and_ours_by_their_workers(tmp_path: Path) -> None:
    programs = [StandInProcess(99, 2500), StandInProcess(98, 2600, draws=True), StandInProcess(11, 1500)]
    device = Host(tmp_path, StandInGpu("GPU-a", used_mib=9000, processes=programs)).device(OWN)
    assert [replace(process, name="") for process in device.processes] == [
        DeviceProcess(11, memory_mib=1500, worker_id="w-1"),
        DeviceProcess(98, memory_mib=2600),
        DeviceProcess(99, memory_mib=2500),
    ]
    assert device.used_by_others_mib == 9000 - 1500


def test_a_program_that_computes_and_draws_is_told_once(tmp_path: Path) -> None:
    programs = [StandInProcess(99, 2500), StandInProcess(99, 2700, draws=True)]
    device = Host(tmp_path, StandInGpu("GPU-a", processes=programs)).device()
    assert [(process.pid, process.memory_mib) for process in device.processes] == [(99, 2700)]


def test_what_a_worker_holds_beyond_its_report_is_not_given_away(tmp_path: Path) -> None:
    device = Host(tmp_path, StandInGpu("GPU-a", used_mib=9000, processes=[StandInProcess(11, 5400)])).device(OWN)
    assert device.used_by_others_mib == 9000 - 5000


def test_a_worker_that_does_not_hold_its_memory_yet_hides_no_memory_of_other_programs(tmp_path: Path) -> None:
    programs = [StandInProcess(99, 8000)]
    device = Host(tmp_path, StandInGpu("GPU-a", used_mib=9000, processes=programs)).device(OWN)
    assert device.used_by_others_mib == 9000


@pytest.mark.parametrize(
    ("host_pids", "process_lists", "programs"),
    [
        pytest.param(True, True, [StandInProcess(11, None)], id="a card without figures"),
        pytest.param(False, True, [], id="a container"),
        pytest.param(False, True, [StandInProcess(4711, 6000)], id="a container that shows the host's process ids"),
        pytest.param(True, False, [], id="an old driver"),
    ],
)
def test_where_the_driver_does_not_tell_the_workers_own_measurement_counts(
    tmp_path: Path, *, host_pids: bool, process_lists: bool, programs: list[StandInProcess]
) -> None:
    gpu = StandInGpu("GPU-a", used_mib=9000, processes=programs)
    device = Host(tmp_path, gpu, host_pids=host_pids, process_lists=process_lists).device(OWN)
    assert device.used_by_others_mib == 4000
    assert device.state is DeviceState.OK


def test_a_virtual_gpu_that_tells_no_processes_is_not_lost(tmp_path: Path) -> None:
    host = Host(tmp_path, StandInGpu("GPU-a", used_mib=9000))
    host.library.show(tells_processes=False)
    device = host.device(OWN)
    assert (device.state, device.used_by_others_mib, device.processes) == (DeviceState.OK, 4000, ())
    assert not host.inventory.holds_memory(11)


def test_process_ids_are_those_of_the_host_in_the_first_namespace_alone(tmp_path: Path) -> None:
    namespace = tmp_path / "pid"
    assert not sees_host_processes(namespace)
    namespace.symlink_to("pid:[4026532201]")
    assert not sees_host_processes(namespace)
    namespace.unlink()
    namespace.symlink_to("pid:[4026531836]")
    assert sees_host_processes(namespace)


@pytest.mark.req("POOL-2001")
def test_a_gpu_that_falls_off_the_bus_is_lost_and_the_others_stay(tmp_path: Path) -> None:
    broken, fine = StandInGpu("GPU-a"), StandInGpu("GPU-b")
    host = Host(tmp_path, broken, fine)
    broken.error = GPU_IS_LOST
    host.library.show()
    assert host.states() == [DeviceState.LOST, DeviceState.OK]
    assert not host.inventory.holds_memory(1)
    broken.error = 0
    host.library.show()
    assert host.states() == [DeviceState.OK, DeviceState.OK]


def test_a_gpu_that_is_broken_at_the_start_does_not_cost_the_others(tmp_path: Path) -> None:
    host = Host(tmp_path, StandInGpu("GPU-a", error=GPU_IS_LOST), StandInGpu("GPU-b"))
    assert [(device.index, device.device_id) for device in host.inventory.sample(OwnUse())] == [(1, "GPU-b")]


@pytest.mark.req("POOL-2001")
def test_a_driver_that_is_unloaded_loses_its_devices_and_brings_them_back(tmp_path: Path) -> None:
    host = Host(tmp_path, StandInGpu("GPU-a"), StandInGpu("GPU-b"))
    host.library.show(driver_load=2, init_error=DRIVER_NOT_LOADED)
    assert host.states() == [DeviceState.LOST] * 2
    host.library.show(init_error=0)
    seen = [host.states() for _ in range(25)]
    assert seen[-1] == [DeviceState.OK] * 2


@pytest.mark.req("POOL-2003")
def test_nvml_knows_whether_a_process_still_holds_memory(tmp_path: Path) -> None:
    gpu = StandInGpu("GPU-a", processes=[StandInProcess(11, 6000)])
    host = Host(tmp_path, gpu)
    assert host.inventory.holds_memory(11)
    gpu.processes.clear()
    host.library.show()
    assert not host.inventory.holds_memory(11)


@pytest.mark.parametrize(
    ("code", "found", "remedy"),
    [
        (VERSION_MISMATCH, "NVML", "reboot: the driver was upgraded"),
        (DRIVER_NOT_LOADED, "Driver Not Loaded", "modprobe nvidia"),
        (NO_PERMISSION, "Insufficient Permissions", "/dev/nvidia"),
        (UNKNOWN_ERROR, "Unknown Error", "install the NVIDIA driver"),
    ],
)
def test_a_driver_that_fails_at_the_start_says_why_and_what_to_do(
    tmp_path: Path, code: int, found: str, remedy: str
) -> None:
    library = NvmlStandIn(tmp_path)
    library.show(init_error=code)
    with pytest.raises(InventoryUnavailable, match=found) as unavailable:
        NvmlInventory(library.binding()).open()
    assert remedy in unavailable.value.remedy


@pytest.mark.parametrize(
    ("gpus", "words"), [([], "shows no GPU"), ([StandInGpu("GPU-a", error=GPU_IS_LOST)], "1 that can't be used")]
)
def test_a_driver_without_a_usable_card_says_what_it_shows(tmp_path: Path, gpus: list[StandInGpu], words: str) -> None:
    with pytest.raises(InventoryUnavailable, match=words):
        NvmlInventory(NvmlStandIn(tmp_path, *gpus).binding()).open()


def test_the_real_binding_is_asked_and_answers_plainly_without_a_driver() -> None:
    pytest.importorskip("pynvml", reason="the extra `gpu` is not installed")
    found = what_nvml_finds(NvmlInventory())
    assert found
    assert isinstance(found[0], Device) or "NVML" in found[0]


def what_nvml_finds(inventory: NvmlInventory) -> Sequence[Device | str]:
    try:
        inventory.open()
    except InventoryUnavailable as error:
        return [str(error)]
    devices = inventory.sample(OwnUse())
    inventory.close()
    return devices


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Host]:
    """A host whose driver hangs as long as the test wants, asked with a short deadline."""
    host = Host(tmp_path, StandInGpu("GPU-a"), StandInGpu("GPU-b"), deadline_s=0.25)
    yield host
    host.library.show(hangs=False)
    wait_answers_again(host.inventory)
    host.inventory.close()
    for thread in threading.enumerate():
        if thread.name == "device driver":
            thread.join(timeout=5)
            assert not thread.is_alive()


@pytest.mark.req("POOL-2001")
def test_a_driver_that_hangs_loses_its_devices_and_blocks_no_caller(silent: Host) -> None:
    silent.library.show(hangs=True)
    assert silent.states() == [DeviceState.LOST] * 2
    assert not silent.inventory.holds_memory(11)
    assert silent.states() == [DeviceState.LOST] * 2


@pytest.mark.req("POOL-2001")
def test_a_driver_that_comes_to_itself_brings_its_devices_back(silent: Host) -> None:
    silent.library.show(hangs=True)
    assert silent.states() == [DeviceState.LOST] * 2
    silent.library.show(hangs=False)
    wait_answers_again(silent.inventory)
    assert silent.states() == [DeviceState.OK] * 2


def wait_answers_again(inventory: DeviceInventory) -> None:
    """Another thread comes back from its driver; no event tells of it, so poll."""
    give_up_at = time.monotonic() + 10
    while any(device.state is DeviceState.LOST for device in inventory.sample(OwnUse())):
        assert time.monotonic() < give_up_at, "the devices stay lost"
        time.sleep(0.01)


def test_a_driver_that_hangs_at_the_start_is_given_up_on(tmp_path: Path) -> None:
    library = NvmlStandIn(tmp_path, StandInGpu("GPU-a"))
    library.show(hangs=True)
    inventory = DeadlineInventory(NvmlInventory(library.binding()), open_within_s=0.05, answer_within_s=0.05)
    with pytest.raises(InventoryUnavailable, match=r"did not answer within 0\.05 s"):
        inventory.open()
    library.show(hangs=False)


class Wild(SimulatedInventory):
    """A driver's library that fails in a way that no interface speaks of."""

    def sample(self, own: OwnUse) -> Sequence[Device]:
        if own.pids:
            raise OSError("exception: access violation reading 0x0")
        return super().sample(own)

    def holds_memory(self, pid: int) -> bool:
        raise OSError("exception: access violation reading 0x0")


@pytest.mark.req("POOL-2001")
def test_whatever_a_driver_throws_only_its_devices_are_lost() -> None:
    inventory = DeadlineInventory(Wild([SimulatedGpu("RTX 3090", 24576)]))
    inventory.open()
    assert [device.state for device in inventory.sample(OwnUse(pids={1: "w-1"}))] == [DeviceState.LOST]
    assert not inventory.holds_memory(1)
    assert [device.state for device in inventory.sample(OwnUse())] == [DeviceState.OK]
    inventory.close()


def test_simulated_memory_is_used_by_what_workers_hold(tmp_path: Path) -> None:
    first, second = simulated(tmp_path).sample(OwnUse(memory_mib={"sim-1": 4096}))
    assert (first.memory_used_mib, second.memory_used_mib) == (0, 4096)


def test_a_container_limit_bounds_the_memory_of_the_cpu(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{64 * MIB}\n")
    (tmp_path / "memory.current").write_text(f"{40 * MIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {10 * MIB}\n")
    inventory = CpuInventory(cgroup_root=tmp_path)
    inventory.open()
    (device,) = inventory.sample(OwnUse())
    assert (device.memory_total_mib, device.memory_used_mib) == (64, 30)
