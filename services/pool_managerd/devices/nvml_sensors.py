"""Sensors of a GPU: figures that some cards lack (passively cooled ones, virtual ones)."""

from collections.abc import Callable
from typing import Any

from pool_managerd.devices.device import ThrottleReason

# Bits of NVML's clocks event reasons (nvml.h, nvmlClocksEventReason*). The others tell of idling and of settings.
_CAUSES = {
    ThrottleReason.HEAT: 0x20 | 0x40,
    ThrottleReason.POWER: 0x04 | 0x80,
}
_SLOWED_BY_HARDWARE = 0x08
_UNCORRECTED_ERRORS = 1  # NVML_MEMORY_ERROR_TYPE_UNCORRECTED
_SINCE_THE_DRIVER_WAS_LOADED = 0  # NVML_VOLATILE_ECC
_TEMPERATURE_OF_THE_GPU = 0  # NVML_TEMPERATURE_GPU


def read_sensors(nvml: Any, handle: Any) -> dict[str, Any]:
    """The fields of a `Device` that are sensors; None for what this card does not have."""

    def figure(read: Callable[[], int]) -> int | None:
        try:
            return max(0, int(read()))
        except nvml.NVMLError:
            return None

    return {
        "utilisation_percent": figure(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        "temperature_c": figure(lambda: nvml.nvmlDeviceGetTemperature(handle, _TEMPERATURE_OF_THE_GPU)),
        "power_w": figure(lambda: nvml.nvmlDeviceGetPowerUsage(handle) // 1000),
        "ecc_errors": figure(
            lambda: nvml.nvmlDeviceGetTotalEccErrors(handle, _UNCORRECTED_ERRORS, _SINCE_THE_DRIVER_WAS_LOADED)
        ),
        "throttle_reasons": _throttle_reasons(_clocks_event_reasons(nvml, figure, handle) or 0),
    }


def _clocks_event_reasons(nvml: Any, figure: Callable[[Callable[[], int]], int | None], handle: Any) -> int | None:
    """Drivers before 535 know it under its older name only."""
    bits = figure(lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
    return figure(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)) if bits is None else bits


def _throttle_reasons(bits: int) -> tuple[ThrottleReason, ...]:
    """The hardware's slowdown is set along with its causes, so it is told only where it has none of these."""
    causes = tuple(reason for reason, mask in _CAUSES.items() if bits & mask)
    return causes or ((ThrottleReason.HARDWARE,) if bits & _SLOWED_BY_HARDWARE else ())
