"""Between protobuf and this daemon's own words; the only place where the two meet."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from llama_orch.v2 import (
    control_pb2,
    device_pb2,
    engine_pb2,
    node_link_pb2,
    node_pb2,
    pool_manager_service_pb2,
    pool_pb2,
    worker_pb2,
)
from llorch.rpc import model_facts, worker_spec
from llorch.rpc.enum_table import EnumTable
from llorch.rpc.enum_tables import DEVICE_KINDS, WORKER_STATES
from llorch.rpc.reasons import reason_to_proto
from pool_managerd.control import CommandHeader
from pool_managerd.devices.device import Device, DeviceProcess, DeviceState, ThrottleReason
from pool_managerd.models.digest import DigestProgress
from pool_managerd.models.download.progress import Progress
from pool_managerd.models.reading import Reading
from pool_managerd.models.references import LocatedModel
from pool_managerd.node_state import NodeState, Pool
from pool_managerd.workers.status import WorkerExit, WorkerStatus

_MIB = 2**20

_DEVICE_STATES = EnumTable(DeviceState, device_pb2.DeviceState, unused={"RELEASED"})
_THROTTLE_REASONS = EnumTable(ThrottleReason, device_pb2.ThrottleReason)
_MOST_PROCESSES = 16  # per device, in a report


def command_header(message: control_pb2.ControlHeader) -> CommandHeader:
    return CommandHeader(message.cluster_id, message.control_epoch, message.command_seq)


def engine_bytes(message: engine_pb2.EngineInfo) -> bytes:
    return message.SerializeToString()


def snapshot(state: NodeState, node_id: str, *, with_endpoints: bool) -> node_link_pb2.NodeSnapshot:
    """`with_endpoints` only for the orchestrator: they hold the workers' secrets."""
    return node_link_pb2.NodeSnapshot(
        full=state.full,
        devices=[_device(device) for device in state.devices],
        pools=[_pool(pool, node_id) for pool in state.pools],
        workers=[_worker_report(worker, node_id, with_endpoint=with_endpoints) for worker in state.workers],
        staged_models=[_staged_model(model) for model in state.models],
        worker_activity=[_activity(worker) for worker in state.active],
    )


def progress(progress: Progress) -> pool_manager_service_pb2.StageProgress:
    """Of a file that is still coming."""
    total = progress.total
    return pool_manager_service_pb2.StageProgress(
        done_mib=progress.done // _MIB,
        total_mib=None if total is None else -(-total // _MIB),
        mib_per_second=progress.bytes_per_s / _MIB,
    )


def complete_progress(model: LocatedModel) -> pool_manager_service_pb2.StageProgress:
    size_mib = _size_mib(model)
    return pool_manager_service_pb2.StageProgress(
        done_mib=size_mib, total_mib=size_mib, complete=True, facts=model_facts.to_proto(model.facts)
    )


def verification(reading: DigestProgress, model: LocatedModel) -> pool_manager_service_pb2.VerifyStagedModelResponse:
    return pool_manager_service_pb2.VerifyStagedModelResponse(
        done_mib=reading.done_bytes // _MIB, total_mib=_size_mib(model), digest=reading.digest
    )


def _device(device: Device) -> device_pb2.Device:
    return device_pb2.Device(
        device_id=device.device_id,
        kind=DEVICE_KINDS.to_proto(device.kind),
        index=device.index,
        name=device.name,
        state=_DEVICE_STATES.to_proto(device.state),
        memory_total_mib=device.memory_total_mib,
        memory_used_mib=device.memory_used_mib,
        memory_others_mib=device.used_by_others_mib,
        reserve_mib=device.reserve_mib,
        utilization_percent=device.utilisation_percent,
        temperature_c=device.temperature_c,
        power_w=device.power_w,
        compute_capability=device.compute_capability,
        driver_version=device.driver_version,
        ecc_errors=device.ecc_errors,
        throttled=bool(device.throttle_reasons),
        throttle_reasons=[_THROTTLE_REASONS.to_proto(reason) for reason in device.throttle_reasons],
        processes=[_process(process) for process in device.processes[:_MOST_PROCESSES]],
    )


def _process(process: DeviceProcess) -> device_pb2.DeviceProcess:
    return device_pb2.DeviceProcess(
        pid=process.pid, name=process.name, memory_mib=process.memory_mib, worker_id=process.worker_id
    )


def _pool(pool: Pool, node_id: str) -> pool_pb2.Pool:
    return pool_pb2.Pool(
        pool_id=pool.pool_id, node_id=node_id, device_ids=pool.device_ids, state=pool_pb2.POOL_STATE_READY
    )


def _worker_report(status: WorkerStatus, node_id: str, *, with_endpoint: bool) -> node_link_pb2.WorkerReport:
    endpoint = None
    if with_endpoint and status.address:
        endpoint = worker_pb2.WorkerEndpoint(advertise_address=status.address, access_token=status.access_token)
    return node_link_pb2.WorkerReport(worker=_worker(status, node_id), endpoint=endpoint)


def _activity(status: WorkerStatus) -> node_link_pb2.WorkerActivity:
    stats = worker_pb2.WorkerStats.FromString(status.stats)
    return node_link_pb2.WorkerActivity(worker_id=status.spec.worker_id, stats=stats)


def _worker(status: WorkerStatus, node_id: str) -> worker_pb2.Worker:
    return worker_pb2.Worker(
        spec=worker_spec.to_proto(status.spec),
        node_id=node_id,
        state=WORKER_STATES.to_proto(status.state),
        engine=engine_pb2.EngineInfo.FromString(status.engine) if status.engine else None,
        stats=worker_pb2.WorkerStats.FromString(status.stats) if status.stats else None,
        exit=_exit(status.exit) if status.exit else None,
        pid=status.pid,
        reading=_reading(status.reading) if status.reading else None,
        start_time=_timestamp(status.start_time),
        ready_time=_timestamp(status.ready_time),
        load_progress=status.load_progress,
    )


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def _reading(reading: Reading) -> worker_pb2.ModelReading:
    return worker_pb2.ModelReading(
        file_mib=-(-reading.file_bytes // _MIB),
        cached_mib=reading.cached_bytes // _MIB,
        read_ms=round(reading.seconds * 1000),
        disk_mib_per_second=round((reading.bytes_per_s or 0) / _MIB),
    )


def _exit(how: WorkerExit) -> worker_pb2.WorkerExit:
    told = worker_pb2.WorkerExit(
        exit_code=how.exit_code,
        signal=how.signal,
        last_lines=how.last_lines,
        message=how.message,
        end_time=_timestamp(how.end_time),
        failures_in_a_row=how.failures_in_a_row,
    )
    if how.reason is not None:
        told.reason = reason_to_proto(how.reason)
    return told


def _staged_model(model: LocatedModel) -> node_pb2.StagedModel:
    return node_pb2.StagedModel(
        source=model.reference, size_mib=_size_mib(model), digest=model.digest, name=model.offered_as
    )


def _size_mib(model: LocatedModel) -> int:
    return -(-model.size_bytes // _MIB)
