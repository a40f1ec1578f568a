"""Which engine runs a model where it is placed."""

from collections.abc import Sequence

from orchestratord.core.facts.fleet import Device
from orchestratord.core.facts.model import Model


def offers(device: Device, engine: str) -> bool:
    """A node of an earlier version tells no engines, and counts as offering any."""
    return engine in device.engines or not device.engines


def engine_for(model: Model, devices: Sequence[Device]) -> str:
    """The one that the model names, else the first that all of the devices offer; empty where they do not tell."""
    if model.spec.engine:
        return model.spec.engine
    first, *others = devices
    return next((name for name in first.engines if all(name in device.engines for device in others)), "")
