"""What there is in a simulated world: hosts and models; and how unreliable it is."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Self

GIB = 1024


@dataclass(frozen=True)
class DevicePlan:
    device_id: str
    name: str
    total_mib: int
    reserve_mib: int
    speed: float
    """What `decode_tokens_per_s` of a model is multiplied by here."""


@dataclass(frozen=True)
class HostPlan:
    """Equal cards with another `driver` give other bytes. A host that is not `proven` does not say what it gives."""

    node_id: str
    devices: tuple[DevicePlan, ...]
    disk_mib_per_s: float
    driver: int = 1
    proven: bool = True


@dataclass(frozen=True)
class ModelPlan:
    """`claim_mib` is what the brain reckons with; `needs_mib` what a process of it really takes.

    `decode_tokens_per_s` is that of one run alone on a card with the speed 1; where the model's speed is known on cards
    of a name, `measured` has it.
    """

    name: str
    claim_mib: int
    needs_mib: int
    decode_tokens_per_s: float
    measured: tuple[tuple[str, float], ...] = ()

    def tokens_per_s(self, devices: Iterable[DevicePlan]) -> float:
        """Over several devices as on the slowest of them."""
        measured = dict(self.measured)
        return min(measured.get(one.name, self.decode_tokens_per_s * one.speed) for one in devices)


@dataclass(frozen=True)
class Chances:
    """Of what goes wrong by itself; delays in seconds."""

    writes_fail: float = 0.0
    """Chance per write of a task or of a change."""
    load_fails: float = 0.0
    """Chance per load."""
    load_is_slow: float = 0.0
    """Chance per load that it takes up to eight times as long."""
    answer_lost: float = 0.0
    """Chance per command: it was carried out, but its answer never comes."""
    duplicate: float = 0.0
    """Chance per message that may come twice."""
    late_s: float = 0.0
    memory_returns_after_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class WorldPlan:
    seed: int
    hosts: tuple[HostPlan, ...]
    models: tuple[ModelPlan, ...]
    faults: Chances = field(default_factory=Chances)

    def with_(self, **changes: object) -> Self:
        return replace(self, **changes)  # type: ignore[arg-type]  # callers name fields
