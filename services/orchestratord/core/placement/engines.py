"""Which engine runs a model where it is placed."""

from collections.abc import Sequence

from orchestratord.core.facts.fleet import Device
from orchestratord.core.facts.model import Model


def offers(device: Device, engine: str) -> bool:
    """A node of an earlier version reports no engines: which one it would start can't be chosen, so none is offered."""
    return engine in device.engines


def engine_for(model: Model, devices: Sequence[Device]) -> str:
    """The one that the model names, else the first that all of the devices offer; empty where none is reported."""
    if model.spec.engine:
        return model.spec.engine
    first, *others = devices
    return next((name for name in first.engines if all(name in device.engines for device in others)), "")
