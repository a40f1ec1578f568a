"""Nodes: what they report."""

from llama_orch.v2 import device_pb2, engine_pb2, node_link_pb2, pool_pb2, saved_session_pb2, worker_pb2
from llorch.device_kind import DeviceKind
from llorch.errors import Reason
from llorch.identifiers import is_id
from llorch.rpc import fingerprints, worker_spec
from llorch.rpc.enum_tables import DEVICE_KINDS, WORKER_STATES
from llorch.rpc.reasons import reason_of_proto
from llorch.worker_state import WorkerState
from orchestratord.core.facts.fleet import (
    Device,
    Endpoint,
    EngineFacts,
    Pool,
    SavedSessions,
    Snapshot,
    WorkerReported,
)
from orchestratord.core.facts.promise import UNPROVEN, Fingerprint


def to_snapshot(snapshot: node_link_pb2.NodeSnapshot) -> Snapshot:
    """States and kinds of a newer pool manager that this version does not know are left out."""
    return Snapshot(
        full=snapshot.full,
        devices=tuple(_device(device, kind) for device in snapshot.devices if (kind := DEVICE_KINDS.find(device.kind))),
        workers=tuple(
            _worker(report, state) for report in snapshot.workers if (state := WORKER_STATES.find(report.worker.state))
        ),
        staged={model.source: model.size_mib for model in snapshot.staged_models},
        pools=tuple(_pool(pool) for pool in snapshot.pools),
        offered={model.name: model.source for model in snapshot.staged_models if is_id(model.name)},
        saved_sessions=_saved_sessions(snapshot.saved_sessions) if snapshot.HasField("saved_sessions") else None,
    )


def _saved_sessions(saved: saved_session_pb2.SavedSessions) -> SavedSessions:
    return SavedSessions(saved.sequences, saved.size_mib, saved.budget_mib)


def _device(device: device_pb2.Device, kind: DeviceKind) -> Device:
    return Device(
        device_id=device.device_id,
        kind=kind,
        index=device.index,
        name=device.name,
        usable=device.state == device_pb2.DEVICE_STATE_OK,
        total_mib=device.memory_total_mib,
        others_mib=device.memory_others_mib,
        reserve_mib=device.reserve_mib,
        used_mib=device.memory_used_mib,
        compute_capability=device.compute_capability,
        engines=tuple(device.engines),
        report=device,
    )


def _pool(pool: pool_pb2.Pool) -> Pool:
    return Pool(pool.pool_id, pool.node_id, tuple(pool.device_ids), report=pool)


def _worker(report: node_link_pb2.WorkerReport, state: WorkerState) -> WorkerReported:
    """A worker that drains takes no new runs: to the brain it is ending."""
    worker = report.worker
    return WorkerReported(
        spec=worker_spec.from_report(worker.spec),
        state=WorkerState.STOPPING if state is WorkerState.DRAINING else state,
        engine=_engine(worker.engine) if worker.HasField("engine") else None,
        endpoint=_endpoint(report.endpoint) if report.HasField("endpoint") else None,
        failure=_failure(worker),
        answers=not worker.does_not_answer,
        warm_prompts=worker.stats.warm_prefixes,
        report=worker,
    )


_KNOWS_ATTEMPTS = 2
"""The protocol version from which on a worker tells which attempt of which task a run is."""


def _engine(engine: engine_pb2.EngineInfo) -> EngineFacts:
    return EngineFacts(
        engine=engine.engine,
        engine_version=engine.engine_version,
        slots=engine.slots,
        context_per_slot=engine.context_per_slot,
        simulated=engine.simulated,
        cpu=engine.cpu,
        memory_mib=tuple(engine.memory_mib),
        resumes=engine.protocol_max >= _KNOWS_ATTEMPTS
        and engine.capabilities.resume == engine_pb2.RESUME_SUPPORT_EXACT_IDS,
        fingerprint=_fingerprint(engine.fingerprint) if engine.capabilities.deterministic else UNPROVEN,
    )


def _fingerprint(told: engine_pb2.EngineFingerprint) -> Fingerprint:
    return Fingerprint(fingerprints.digest_of(told), fingerprints.words_of(told))


def _endpoint(endpoint: worker_pb2.WorkerEndpoint) -> Endpoint:
    return Endpoint(endpoint.advertise_address, endpoint.access_token)


def _failure(worker: worker_pb2.Worker) -> tuple[Reason, str] | None:
    if worker.state != worker_pb2.WORKER_STATE_FAILED:
        return None
    exit_ = worker.exit
    reason = reason_of_proto(exit_.reason) if exit_.reason else Reason.MODEL_LOAD_FAILED
    return reason, exit_.message or "\n".join(exit_.last_lines[-3:]) or "it ended without a word"
