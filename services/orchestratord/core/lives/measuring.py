"""A worker has its model in memory: its measured memory is learnt for the next load."""

from orchestratord.core.effects import PersistRecord
from orchestratord.core.facts.calibration import Calibration, kinds_of, rounded
from orchestratord.core.facts.fleet import Worker
from orchestratord.core.state import BrainState


def learn(state: BrainState, worker: Worker) -> None:
    """Only from engines that measure, of files that a model has, and only if all devices of the worker are known."""
    spec, engine = worker.spec, worker.engine
    there = state.fleet.nodes[worker.node_id].devices
    devices = [there[device_id] for device_id in spec.device_ids if device_id in there]
    if engine is None or len(devices) != len(spec.device_ids) or len(engine.memory_mib) != len(devices):
        return
    if not any(engine.memory_mib) or not state.catalog.by_source(spec.source):
        return
    measured = Calibration(
        source=spec.source,
        context=spec.context_per_slot,
        slots=spec.slots,
        cache_type=spec.cache_type_k,
        devices=kinds_of(devices),
        shares=rounded(spec.tensor_split),
        mib=engine.memory_mib,
        engine=spec.engine,
    )
    before = state.calibrations.find(measured.key)
    if before != measured:
        state.emit(PersistRecord(before, measured))
    _put(state, measured)


def restore(state: BrainState, record: Calibration) -> None:
    _put(state, record)


def _put(state: BrainState, calibration: Calibration) -> None:
    for oldest in state.calibrations.put(calibration):
        state.emit(PersistRecord(oldest, None))
