"""Who holds how much memory of which device. Never over-committed, by construction."""

from collections.abc import Mapping
from dataclasses import dataclass, field

DeviceKey = tuple[str, str]
"""(node_id, device_id)."""


class OverCommit(AssertionError):
    """A reservation was asked for that does not fit; whoever asks has to look at `available` first."""


@dataclass(slots=True)
class _Account:
    total_mib: int = 0
    reserve_mib: int = 0
    others_mib: int = 0
    held: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Ledger:
    """available = total − reserve − what others use − Σ max(reserved, measured), per device, in MiB.

    Reservations are made for a set of devices at once or not at all, under the id of the load (the worker's id), and
    released under that id only. Another program that takes memory lowers `available`, also below zero; that is an
    event to react to, not a fault of the ledger.
    """

    _accounts: dict[DeviceKey, _Account] = field(default_factory=dict)
    _loads: dict[str, tuple[DeviceKey, ...]] = field(default_factory=dict)

    def set_device(self, device: DeviceKey, total_mib: int, reserve_mib: int, others_mib: int) -> None:
        account = self._accounts.setdefault(device, _Account())
        account.total_mib, account.reserve_mib, account.others_mib = total_mib, reserve_mib, others_mib

    def capacity(self, device: DeviceKey) -> int:
        """What the device could hold if nobody of ours were on it."""
        account = self._accounts.get(device, _Account())
        return account.total_mib - account.reserve_mib - account.others_mib

    def held(self, device: DeviceKey) -> int:
        return sum(self._accounts.get(device, _Account()).held.values())

    def available(self, device: DeviceKey) -> int:
        return self.capacity(device) - self.held(device)

    def reserve(self, load_id: str, claims: Mapping[DeviceKey, int]) -> None:
        if load_id in self._loads:
            raise OverCommit(f"load {load_id} has reserved already")
        for device, mib in claims.items():
            if mib > self.available(device):
                raise OverCommit(
                    f"load {load_id} asks for {mib} MiB of {device}; {self.available(device)} are available"
                )
        self.charge(load_id, claims)

    def charge(self, load_id: str, claims: Mapping[DeviceKey, int]) -> None:
        """Book what is there already, whether it fits or not: a worker that was found running."""
        self._loads[load_id] = tuple(claims)
        for device, mib in claims.items():
            self._accounts.setdefault(device, _Account()).held[load_id] = mib

    def measured(self, load_id: str, measurements: Mapping[DeviceKey, int]) -> None:
        """A load came to an end and takes this much: the larger of claim and measurement counts from now on."""
        for device in self._loads.get(load_id, ()):
            held = self._accounts[device].held
            held[load_id] = max(held[load_id], measurements.get(device, 0))

    def release(self, load_id: str) -> None:
        """Idempotent; an unknown id releases nothing, so a late release can't free what another load holds."""
        for device in self._loads.pop(load_id, ()):
            del self._accounts[device].held[load_id]

    def held_by(self, load_id: str, device: DeviceKey) -> int:
        return self._accounts.get(device, _Account()).held.get(load_id, 0)

    def loads_on(self, device: DeviceKey) -> list[str]:
        return sorted(self._accounts.get(device, _Account()).held)
