"""Which inventory this host gets, by what its owner allowed. Never the CPU unless the settings allow it."""

from collections.abc import Sequence
from typing import Any

from llorch.errors import FailedPrecondition, Reason
from llorch.logs import get_logger
from llorch.simulated_gpu import parse_simulated_gpu
from pool_managerd.devices.cpu import CpuInventory
from pool_managerd.devices.deadline import DeadlineInventory
from pool_managerd.devices.inventory import CombinedInventory, DeviceInventory, InventoryUnavailable
from pool_managerd.devices.nvml import NvmlInventory
from pool_managerd.devices.pci import cards_on_the_bus
from pool_managerd.devices.simulated import SimulatedInventory

_log = get_logger(__name__)


class NoDevice(FailedPrecondition):
    """Nothing here may run models. `found` is why there is no GPU, `what_to_do` what the owner can choose from.

    The message has a line for each point, and for each choice.
    """

    def __init__(self, unavailable: InventoryUnavailable, cards: Sequence[str]) -> None:
        self.found = str(unavailable)
        self.cards = cards
        choices = (
            unavailable.remedy,
            "or run models on the CPU with --allow-cpu",
            'or try things out on an imaginary card with --simulate-gpu "RTX 3090:24GiB"',
        )
        self.what_to_do = "; ".join(choices)
        super().__init__(
            Reason.NO_DEVICE,
            "No device to run models on.\n"
            "Looked for: NVIDIA GPUs through the driver's library (NVML).\n"
            f"Found: {self.found}.\n"
            f"Plugged in: {describe_cards(cards)}.\n"
            "What to do: " + ";\n  ".join(choices) + ".",
        )


def open_inventory(*, simulate_gpu: Sequence[str], allow_cpu: bool, nvml_binding: Any = None) -> DeviceInventory:
    """The opened inventory.

    Simulated devices stand alone: beside real ones, a real request could land on an imaginary card. Otherwise
    the GPUs of this host, and its CPU as well where that is allowed. Raises `NoDevice` where nothing is left.
    """
    if simulate_gpu:
        simulated = SimulatedInventory([parse_simulated_gpu(text) for text in simulate_gpu])
        simulated.open()
        return simulated
    parts: list[DeviceInventory] = []
    gpus = DeadlineInventory(NvmlInventory(nvml_binding))
    try:
        gpus.open()
        parts.append(gpus)
    except InventoryUnavailable as error:
        if not allow_cpu:
            raise NoDevice(error, cards_on_the_bus()) from error
        _tell_that_the_cpu_is_all(error, cards_on_the_bus())
    if allow_cpu:
        cpu = CpuInventory()
        cpu.open()
        parts.append(cpu)
    return CombinedInventory(parts)


def _tell_that_the_cpu_is_all(unavailable: InventoryUnavailable, cards: Sequence[str]) -> None:
    """Logs that only the CPU is used; a warning where the machine seems to have started before its GPU's driver."""
    instead = "the CPU, as allowed"
    if any("NVIDIA" in card for card in cards):
        _log.warning(
            "gpu_without_driver",
            plugged_in=cards,
            found=str(unavailable),
            what_to_do=f"{unavailable.remedy}, and start again",
            instead=instead,
        )
    else:
        _log.info("no_gpu", looked_for="NVIDIA GPUs through NVML", found=str(unavailable), instead=instead)


def describe_cards(cards: Sequence[str]) -> str:
    """Tells the owner of a card of another maker why this release can't use it."""
    if not cards:
        return "no graphics card that the system knows"
    return ", ".join(card if "NVIDIA" in card else f"{card}, which this release can't use" for card in cards)
