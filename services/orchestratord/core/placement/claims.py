"""The memory that a model takes of every device of a place: measured before, or estimated."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from llorch.device_kind import DeviceKind
from orchestratord.core.facts.fleet import Device
from orchestratord.core.facts.memory_estimate import estimate_split_mib
from orchestratord.core.placement.engines import engine_for
from orchestratord.core.placement.query import Query

Shares = tuple[float, ...]

WHOLE: Shares = (1.0,)

Card = tuple[str, str, tuple[str, ...]]
"""Kind, name and engines of a device: a model takes the same on all devices that are equal in these."""


def card_of(device: Device) -> Card:
    return device.kind, device.name, device.engines


@dataclass(slots=True)
class Claims:
    """For one query: devices of one kind and card take the same, so most places of a fleet share a few answers."""

    query: Query
    _known: dict[tuple[tuple[Card, ...], Shares], tuple[int, ...]] = field(default_factory=dict)

    def on(self, devices: Sequence[Device], shares: Shares = WHOLE) -> tuple[int, ...]:
        """MiB per device. `shares` are proportions of the model. 0, as long as neither its file nor its owner tells."""
        key = tuple(map(card_of, devices)), shares
        if key not in self._known:
            self._known[key] = self._look(devices, shares)
        return self._known[key]

    def _look(self, devices: Sequence[Device], shares: Shares) -> tuple[int, ...]:
        model, context = self.query.model, self.query.request.context
        if not model.memory_is_known:
            return (0,) * len(devices)
        on_cpu = all(device.kind is DeviceKind.CPU for device in devices)
        kind = DeviceKind.CPU if on_cpu else DeviceKind.CUDA
        estimated = estimate_split_mib(model, model.size_mib or 0, context, shares, kind)
        measured = self.query.state.calibrations.known(
            model, engine_for(model, devices), context, devices, shares if len(devices) > 1 else ()
        )
        return estimated if measured is None else measured
