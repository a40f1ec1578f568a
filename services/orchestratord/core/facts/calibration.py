"""The memory that models really take: measured once they are loaded, and used instead of the estimate from then on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestratord.core.facts.fleet import Device
from orchestratord.core.facts.model import Model

Key = tuple[str, int, int, str, tuple[str, ...], tuple[float, ...], str, str]

COUNTS = "reading"
"""What a worker of this release has from its load on beside weights and the memory of answers. What was measured of
workers that had less, or more, tells nothing: give it another name when that changes.
"""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Memory that a file took with this context, slots and cache, in MiB per device, on such devices.

    `devices` are kind and card: what a runtime takes for itself differs between cards. `shares` are those of the layers
    over several devices; empty on one. `engine` is the one that the worker was started with; empty if its node reports
    none. `counts` is what was in it; empty for releases whose workers made their memory for texts later.
    """

    source: str
    context: int
    slots: int
    cache_type: str
    devices: tuple[str, ...]
    shares: tuple[float, ...]
    mib: tuple[int, ...]
    engine: str = ""
    counts: str = COUNTS

    @property
    def record_key(self) -> str:
        """Without what earlier releases did not tell, it is theirs."""
        *known, engine, counts = self.key
        told = [engine, counts] if counts else [engine] if engine else []
        return "|".join(map(str, [*known, *told]))

    @property
    def key(self) -> Key:
        known = self.source, self.context, self.slots, self.cache_type, self.devices, self.shares
        return *known, self.engine, self.counts


MOST_CALIBRATIONS = 4096
"""The one that was measured longest ago goes first."""


@dataclass(slots=True)
class Calibrations:
    """Those that were measured last come last."""

    _known: dict[Key, Calibration] = field(default_factory=dict)

    def known(
        self, model: Model, engine: str, context: int, devices: Sequence[Device], shares: Sequence[float] = ()
    ) -> tuple[int, ...] | None:
        """MiB per device; None if the engine never loaded the model so, or its owner has set what it takes."""
        if model.vram_claim_mib is not None:
            return None
        known = model.spec.source, context, model.slots, model.cache_type, kinds_of(devices), rounded(shares)
        found = self._known.get((*known, engine, COUNTS))
        return None if found is None else found.mib

    def find(self, key: Key) -> Calibration | None:
        return self._known.get(key)

    def put(self, calibration: Calibration) -> list[Calibration]:
        """Returns what has to go for it."""
        self._known.pop(calibration.key, None)
        self._known[calibration.key] = calibration
        too_many = len(self._known) - MOST_CALIBRATIONS
        return [self._known.pop(key) for key in list(self._known)[:too_many]] if too_many > 0 else []

    def forget_source(self, source: str) -> list[Calibration]:
        return [self._known.pop(key) for key in list(self._known) if key[0] == source]


def kinds_of(devices: Sequence[Device]) -> tuple[str, ...]:
    return tuple(f"{device.kind} {device.name}" for device in devices)


def rounded(shares: Sequence[float]) -> tuple[float, ...]:
    """Proportions in hundredths, so that [24, 12] and [2, 1] are the same; nothing on one device."""
    whole = sum(shares)
    return tuple(round(share / whole, 2) for share in shares) if len(shares) > 1 else ()
