"""Devices as the owner of a machine names them in its settings. Pure."""

from collections.abc import Iterable, Mapping

from pool_managerd.devices.device import Device

_SHORTEST_PREFIX = 4


def devices_named(name: str, devices: Iterable[Device]) -> tuple[Device, ...]:
    """All that the name fits: an id, an index, the beginning of a UUID, or words of the card's name ("3090").

    The most exact reading that fits any device wins, so "3090" is not an "RTX 3090 Ti" where there is an "RTX 3090".
    A name that fits two equal cards means both of them.
    """
    known = tuple(devices)
    wanted = name.strip().casefold()
    readings = (
        lambda device: device.device_id.casefold() == wanted,
        lambda device: str(device.index) == wanted,
        lambda device: _begins(device.device_id.casefold(), wanted),
        lambda device: device.name.casefold() == wanted,
        lambda device: device.name.casefold().split()[-len(wanted.split()) :] == wanted.split(),
        lambda device: bool(wanted) and set(wanted.split()) <= set(device.name.casefold().split()),
    )
    for fits in readings:
        if found := tuple(device for device in known if fits(device)):
            return found
    return ()


def by_device_id(figures: Mapping[str, int], devices: Iterable[Device]) -> dict[str, int]:
    """Figures that are set by name, by device id; where several names fit a device, the highest counts."""
    known = tuple(devices)
    found: dict[str, int] = {}
    for name, figure in figures.items():
        for device in devices_named(name, known):
            found[device.device_id] = max(figure, found.get(device.device_id, 0))
    return found


def _begins(device_id: str, wanted: str) -> bool:
    return len(wanted) >= _SHORTEST_PREFIX and device_id.removeprefix("gpu-").startswith(wanted.removeprefix("gpu-"))
