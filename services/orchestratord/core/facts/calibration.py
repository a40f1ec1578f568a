"""The memory that models really take: measured once they are loaded, and used instead of the estimate from then on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestratord.core.facts.fleet import Device
from orchestratord.core.facts.model import Model

Key = tuple[str, int, int, str, tuple[str, ...], tuple[float, ...], str]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Memory that a file took with this context, slots and cache, in MiB per device, on such devices.

    `devices` are kind and card: what a runtime takes for itself differs between cards. `shares` are those of the layers
    over several devices; empty on one. `engine` is the one that the worker was started with; empty if its node reports
    none.
    """

    source: str
    context: int
    slots: int
    cache_type: str
    devices: tuple[str, ...]
    shares: tuple[float, ...]
    mib: tuple[int, ...]
    engine: str = ""

    @property
    def record_key(self) -> str:
        """Without an engine it is that of releases which knew only one."""
        return "|".join(map(str, self.key if self.engine else self.key[:-1]))

    @property
    def key(self) -> Key:
        return self.source, self.context, self.slots, self.cache_type, self.devices, self.shares, self.engine


@dataclass(slots=True)
class Calibrations:
    _known: dict[Key, Calibration] = field(default_factory=dict)

    def known(
        self, model: Model, engine: str, context: int, devices: Sequence[Device], shares: Sequence[float] = ()
    ) -> tuple[int, ...] | None:
        """MiB per device; None if the engine never loaded the model so, or its owner has set what it takes."""
        if model.vram_claim_mib is not None:
            return None
        key = (model.spec.source, context, model.slots, model.cache_type, kinds_of(devices), rounded(shares), engine)
        found = self._known.get(key)
        return None if found is None else found.mib

    def find(self, key: Key) -> Calibration | None:
        return self._known.get(key)

    def put(self, calibration: Calibration) -> None:
        self._known[calibration.key] = calibration

    def discard(self, calibration: Calibration) -> None:
        self._known.pop(calibration.key, None)


def kinds_of(devices: Sequence[Device]) -> tuple[str, ...]:
    return tuple(f"{device.kind} {device.name}" for device in devices)


def rounded(shares: Sequence[float]) -> tuple[float, ...]:
    """Proportions in hundredths, so that [24, 12] and [2, 1] are the same; nothing on one device."""
    whole = sum(shares)
    return tuple(round(share / whole, 2) for share in shares) if len(shares) > 1 else ()
