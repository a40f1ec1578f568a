"""The simulated engine, for the registry. It can't be asked what a model would take: that is one of its parameters."""

from pathlib import Path

from worker_orcd.device import parse_device
from worker_orcd.engines.entry import EngineEntry
from worker_orcd.engines.protocol import Engine
from worker_orcd.engines.sim.engine import CAPABILITIES, SimEngine, SimShape
from worker_orcd.engines.sim.parameters import parse_parameters
from worker_orcd.engines.sim.token_reader import SimTokenReader
from worker_orcd.settings import WorkerSettings


def _build(settings: WorkerSettings) -> Engine:
    devices = parse_device(settings.device or "sim:0", allow_cpu=settings.allow_cpu)
    return SimEngine(
        parse_parameters(settings.sim),
        SimShape(
            model=settings.model_name,
            slots=settings.slots,
            context_per_slot=settings.context_per_slot,
            devices=len(devices.ids),
        ),
    )


def _open_vocabulary(_: Path) -> SimTokenReader:
    """Its tokens are the same for every model."""
    return SimTokenReader(CAPABILITIES)


ENTRY = EngineEntry(_build, CAPABILITIES, _open_vocabulary)
