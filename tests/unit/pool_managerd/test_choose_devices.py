from pathlib import Path

import pytest

from llorch.device_kind import DeviceKind
from llorch.errors import FailedPrecondition, InvalidArgument, Reason
from llorch.simulated_gpu import parse_simulated_gpu
from pool_managerd.devices import choose
from pool_managerd.devices.choose import open_inventory
from pool_managerd.devices.device import OwnUse
from pool_managerd.devices.inventory import DeviceInventory
from pool_managerd.devices.pci import cards_on_the_bus


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
    for words in (
        "NVML Shared Library Not Found",
        "install the NVIDIA driver",
        "--allow-cpu",
        '--simulate-gpu "RTX 3090',
    ):
        assert words in refused.value.message


def plug_in(bus: Path, slot: str, vendor: str, kind: str) -> None:
    (bus / slot).mkdir(parents=True)
    (bus / slot / "vendor").write_text(f"{vendor}\n")
    (bus / slot / "class").write_text(f"{kind}\n")


@pytest.mark.req("POOL-2002")
def test_cards_without_a_working_driver_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(tmp_path, "0000:01:00.0", "0x10de", "0x030000")
    plug_in(tmp_path, "0000:01:00.1", "0x10de", "0x040300")  # the sound of the same card
    plug_in(tmp_path, "0000:02:00.0", "0x1002", "0x038000")
    plug_in(tmp_path, "0000:03:00.0", "0x1af4", "0x030000")  # a virtual machine's screen
    (tmp_path / "0000:04:00.0").mkdir()
    cards = cards_on_the_bus(tmp_path)
    assert cards == ["a card of NVIDIA (0000:01:00.0)", "a card of AMD (0000:02:00.0)"]
    monkeypatch.setattr(choose, "cards_on_the_bus", lambda: cards)
    with pytest.raises(FailedPrecondition, match=r"AMD \(0000:02:00\.0\), which this release can't use\."):
        open_inventory(simulate_gpu=[], allow_cpu=False, nvml_binding=NoDriver())


@pytest.mark.req("POOL-2001")
def test_the_cpu_is_a_device_only_where_it_is_allowed() -> None:
    inventory = open_inventory(simulate_gpu=[], allow_cpu=True, nvml_binding=NoDriver())
    assert kinds(inventory) == [DeviceKind.CPU]


@pytest.mark.req("POOL-2002")
def test_a_gpu_that_was_there_and_has_no_driver_does_not_go_unnoticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(choose, "cards_on_the_bus", lambda: ["a card of NVIDIA (0000:01:00.0)"])
    inventory = open_inventory(simulate_gpu=[], allow_cpu=True, nvml_binding=NoDriver())
    assert kinds(inventory) == [DeviceKind.CPU]
    assert "gpu_without_driver" in "".join(capsys.readouterr())


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
