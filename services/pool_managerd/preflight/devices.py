"""Whether there are devices, and whether they are healthy."""

from collections.abc import Iterator, Sequence
from typing import Any

from llorch.device_kind import DeviceKind
from pool_managerd.devices.choose import NoDevice, describe_cards, open_inventory
from pool_managerd.devices.device import Device, DeviceState, OwnUse, ThrottleReason
from pool_managerd.devices.nvml_remedies import INSTALL_DRIVER, LOOK_AT_THE_CARD
from pool_managerd.devices.pci import cards_on_the_bus
from pool_managerd.preflight.finding import Finding, failed, ok, warning
from pool_managerd.settings import PoolManagerSettings

_MIB_PER_GIB = 1024
_WAYS_OUT = {
    ThrottleReason.HEAT: "give it air: dust, fans, and the room between cards",
    ThrottleReason.POWER: "see its limit with `nvidia-smi -q -d POWER`, and whether the power supply has enough",
    ThrottleReason.HARDWARE: "see `nvidia-smi -q -d PERFORMANCE`, and the plugs that feed the card",
}


def find_devices(settings: PoolManagerSettings, nvml_binding: Any = None) -> tuple[list[Finding], tuple[Device, ...]]:
    """As the pool manager finds them at its start; may take as long as the driver does."""
    try:
        inventory = open_inventory(
            simulate_gpu=settings.simulate_gpu, allow_cpu=settings.allow_cpu, nvml_binding=nvml_binding
        )
    except NoDevice as error:
        # Without a card there is nothing to mend on a machine that is to run no models.
        check = "driver" if any("NVIDIA" in card for card in error.cards) else "devices"
        return [failed(check, f"{error.found}; plugged in: {describe_cards(error.cards)}", error.what_to_do)], ()
    try:
        devices = tuple(inventory.sample(OwnUse()))
    finally:
        inventory.close()
    return [_all_of(devices, settings), *_complaints(devices)], devices


def _all_of(devices: Sequence[Device], settings: PoolManagerSettings) -> Finding:
    found = ", ".join(_shown(device) for device in devices)
    if driver := next((device.driver_version for device in devices if device.driver_version), ""):
        found = f"NVIDIA driver {driver}: {found}"
    without_driver = [card for card in cards_on_the_bus() if "NVIDIA" in card]
    if settings.simulate_gpu or not without_driver or any(device.kind is DeviceKind.CUDA for device in devices):
        return ok("devices", found)
    return warning("devices", f"{found}; no driver answers for {', '.join(without_driver)}", INSTALL_DRIVER)


def _shown(device: Device) -> str:
    size = f"{device.memory_total_mib / _MIB_PER_GIB:.1f} GiB"
    return f"{device.name} ({', '.join((size, *device.marks))})"


def _complaints(devices: Sequence[Device]) -> Iterator[Finding]:
    for device in devices:
        who = f"{device.name}, number {device.index},"
        if device.state is DeviceState.LOST:
            yield failed("devices", f"{who} does not answer its driver", LOOK_AT_THE_CARD)
        if device.ecc_errors:
            yield warning(
                "devices",
                f"{who} had {device.ecc_errors} uncorrected memory errors since its driver was loaded",
                "reboot; if they come back, the card's memory fails: results of it can't be trusted",
            )
        for reason in device.throttle_reasons:
            yield warning("devices", f"{who} is slowed down ({reason})", _WAYS_OUT[reason])
