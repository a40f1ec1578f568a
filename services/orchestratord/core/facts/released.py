"""Devices that their owners have taken back."""

from dataclasses import dataclass, field

from orchestratord.core.facts.ledger import DeviceKey


@dataclass(frozen=True, slots=True)
class ReleasedDevice:
    """`until_ms` is in milliseconds since 1970; None = until a caller resumes the device."""

    node_id: str
    device_id: str
    until_ms: int | None = None

    @property
    def record_key(self) -> str:
        return f"{self.node_id}/{self.device_id}"


@dataclass(slots=True)
class ReleasedDevices:
    """By device, with when the release ends on the brain's clock, where it does by itself."""

    _by_key: dict[DeviceKey, ReleasedDevice] = field(default_factory=dict)
    _due: dict[DeviceKey, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: DeviceKey) -> bool:
        return key in self._by_key

    def all(self) -> list[ReleasedDevice]:
        """Those that were released first come first."""
        return list(self._by_key.values())

    def find(self, key: DeviceKey) -> ReleasedDevice | None:
        return self._by_key.get(key)

    def on_node(self, node_id: str) -> list[ReleasedDevice]:
        return [released for released in self._by_key.values() if released.node_id == node_id]

    def of_device(self, device_id: str) -> list[ReleasedDevice]:
        return [released for released in self._by_key.values() if released.device_id == device_id]

    def due_at(self, key: DeviceKey) -> float | None:
        return self._due.get(key)

    def put(self, released: ReleasedDevice, due: float | None = None) -> None:
        key = (released.node_id, released.device_id)
        self._by_key[key] = released
        self._due.pop(key, None)
        if due is not None:
            self._due[key] = due

    def discard(self, key: DeviceKey) -> ReleasedDevice | None:
        self._due.pop(key, None)
        return self._by_key.pop(key, None)
