"""The interface of every device inventory. `tests/contract/test_devices.py` holds all of them to it."""

from collections.abc import Sequence
from typing import Protocol

from pool_managerd.devices.device import Device, OwnUse


class DeviceInventory(Protocol):
    def open(self) -> None:
        """Find the devices; called once, before `sample`. Raises `InventoryUnavailable` where that can't work."""
        ...

    def sample(self, own: OwnUse) -> Sequence[Device]:
        """Every device that `open` found, always all of them and in the same order.

        May take milliseconds (a driver is asked), so call it in a thread. Never raises: a device that stops
        answering is reported LOST with its last known figures.
        """
        ...

    def holds_memory(self, pid: int) -> bool:
        """Whether a device still counts memory of this process, which may have ended. Never raises."""
        ...

    def close(self) -> None:
        """Give the driver back. May be called twice."""
        ...


class InventoryUnavailable(Exception):
    """Nothing to find here; the text says what was found instead, and `remedy` what the owner can do."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.remedy = remedy


class CombinedInventory:
    """Several inventories as one, in the order given."""

    def __init__(self, parts: Sequence[DeviceInventory]) -> None:
        self._parts = tuple(parts)

    def open(self) -> None:
        for part in self._parts:
            part.open()

    def sample(self, own: OwnUse) -> Sequence[Device]:
        return tuple(device for part in self._parts for device in part.sample(own))

    def holds_memory(self, pid: int) -> bool:
        return any(part.holds_memory(pid) for part in self._parts)

    def close(self) -> None:
        for part in self._parts:
            part.close()
