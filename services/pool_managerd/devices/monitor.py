"""The devices of this node as they were a moment ago, asked again twice a second."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from llorch.device_kind import DeviceKind
from llorch.engines import BY_DEVICE, EngineName
from pool_managerd.devices.device import Device, OwnUse
from pool_managerd.devices.inventory import DeviceInventory
from pool_managerd.devices.naming import by_device_id

_SAMPLE_INTERVAL_S = 0.5  # the orchestrator has to know within a second what other programs take
_MEMORY_POLL_S = 0.1
_WORTH_TELLING_MIB = 64


class DeviceMonitor:
    """Asks the inventory from a thread, one question at a time."""

    def __init__(
        self,
        inventory: DeviceInventory,
        changed: Callable[[], None],
        reserve_mib: Mapping[str, int] | None = None,
        engines: Mapping[DeviceKind, tuple[EngineName, ...]] = BY_DEVICE,
    ) -> None:
        """`reserve_mib`: memory that the owner keeps for other programs, by device as it is named in the settings.

        `engines`: what this node runs on its devices, by their kind.
        """
        self._inventory = inventory
        self._changed = changed
        self._engines = engines
        self._named_reserve_mib = reserve_mib or {}
        self._reserve_mib: Mapping[str, int] | None = None
        self._driver = asyncio.Lock()
        self.by_id: Mapping[str, Device] = {}

    async def sample(self, own: OwnUse) -> None:
        async with self._driver:
            devices = await asyncio.to_thread(self._inventory.sample, own)
        if self._reserve_mib is None:
            self._reserve_mib = by_device_id(self._named_reserve_mib, devices)
        before, self.by_id = self.by_id, {device.device_id: self._as_set(device) for device in devices}
        if any(_worth_telling(before.get(device.device_id), device) for device in devices):
            self._changed()

    async def run(self, own_use: Callable[[], OwnUse]) -> None:
        while True:
            await asyncio.sleep(_SAMPLE_INTERVAL_S)
            await self.sample(own_use())

    async def memory_back(self, pid: int, within_s: float) -> bool:
        """Waits until no device holds memory of this process, which has ended. False: one still does."""
        deadline = asyncio.get_running_loop().time() + within_s
        while await self._holds_memory(pid):
            if asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(_MEMORY_POLL_S)
        return True

    def devices(self) -> tuple[Device, ...]:
        return tuple(self.by_id.values())

    async def _holds_memory(self, pid: int) -> bool:
        async with self._driver:
            return await asyncio.to_thread(self._inventory.holds_memory, pid)

    def _as_set(self, device: Device) -> Device:
        """With what the settings say of it."""
        reserve_mib = (self._reserve_mib or {}).get(device.device_id, 0)
        return replace(device, reserve_mib=reserve_mib, engines=self._engines[device.kind])


def _worth_telling(before: Device | None, now: Device) -> bool:
    """Whether the orchestrator should know before the next heartbeat."""
    if before is None or before.state is not now.state:
        return True
    return abs(before.used_by_others_mib - now.used_by_others_mib) >= _WORTH_TELLING_MIB
