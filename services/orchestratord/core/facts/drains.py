"""Pools that are being emptied, and what happens after that."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from orchestratord.core.facts.ledger import DeviceKey


class DrainPolicy(StrEnum):
    """What happens to work that is not finished at the deadline."""

    REQUEUE = "REQUEUE"
    WAIT = "WAIT"
    FAIL = "FAIL"


class AfterDrain(StrEnum):
    """STAY: nothing is started there until the pool is reloaded. RELOAD: what ran there is started again. PURGE: model
    files that no worker or load of the node uses are removed from its cache, with all that it has saved of sessions,
    and the pool stays empty.
    """

    STAY = "STAY"
    RELOAD = "RELOAD"
    PURGE = "PURGE"


@dataclass(frozen=True, slots=True)
class Ran:
    """A model that was loaded in the pool, and where."""

    model: str
    device_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drain:
    """`ran` is for RELOAD. `deadline_ms` is in milliseconds since 1970."""

    pool_id: str
    node_id: str
    device_ids: tuple[str, ...]
    policy: DrainPolicy
    after: AfterDrain
    deadline_ms: int
    ran: tuple[Ran, ...] = ()
    is_drained: bool = False

    @property
    def record_key(self) -> str:
        return self.pool_id

    @property
    def comes_back(self) -> bool:
        """The pool is used again by itself, and soon: tasks wait for its devices."""
        return self.after is AfterDrain.RELOAD

    @property
    def keys(self) -> Iterator[DeviceKey]:
        return ((self.node_id, device_id) for device_id in self.device_ids)


@dataclass(slots=True)
class Drains:
    """By pool, with the deadline on the brain's clock; and whether a device is in one of them, which every placement
    asks.
    """

    _by_pool: dict[str, Drain] = field(default_factory=dict)
    _due: dict[str, float] = field(default_factory=dict)
    _devices: dict[DeviceKey, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._by_pool)

    def all(self) -> list[Drain]:
        return list(self._by_pool.values())

    def find(self, pool_id: str) -> Drain | None:
        return self._by_pool.get(pool_id)

    def on_node(self, node_id: str) -> list[Drain]:
        return [drain for drain in self._by_pool.values() if drain.node_id == node_id]

    def purges(self, node_id: str, device_ids: Iterable[str]) -> bool:
        """Whether one of the devices is in a pool of which nothing is to stay."""
        used = set(device_ids)
        return any(
            drain.after is AfterDrain.PURGE and not used.isdisjoint(drain.device_ids) for drain in self.on_node(node_id)
        )

    def covers(self, key: DeviceKey) -> bool:
        return key in self._devices

    def due_at(self, pool_id: str) -> float:
        return self._due[pool_id]

    def put(self, drain: Drain, due: float) -> None:
        self.discard(drain.pool_id)
        self._by_pool[drain.pool_id] = drain
        self._due[drain.pool_id] = due
        for key in drain.keys:
            self._devices[key] = self._devices.get(key, 0) + 1

    def discard(self, pool_id: str) -> None:
        drain = self._by_pool.pop(pool_id, None)
        if drain is None:
            return
        del self._due[pool_id]
        for key in drain.keys:
            self._devices[key] -= 1
            if not self._devices[key]:
                del self._devices[key]
