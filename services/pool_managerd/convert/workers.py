"""Workers, as they are reported."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from llama_orch.v2 import engine_pb2, node_link_pb2, worker_pb2
from llorch.rpc import worker_spec
from llorch.rpc.enum_tables import WORKER_STATES
from llorch.rpc.reasons import reason_to_proto
from pool_managerd.models.reading import Reading
from pool_managerd.workers.status import WorkerExit, WorkerStatus

_MIB = 2**20


def to_worker_report(status: WorkerStatus, node_id: str, *, with_endpoint: bool) -> node_link_pb2.WorkerReport:
    endpoint = None
    if with_endpoint and status.address:
        endpoint = worker_pb2.WorkerEndpoint(advertise_address=status.address, access_token=status.access_token)
    return node_link_pb2.WorkerReport(worker=_worker(status, node_id), endpoint=endpoint)


def to_activity(status: WorkerStatus) -> node_link_pb2.WorkerActivity:
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
        does_not_answer=not status.answers,
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
