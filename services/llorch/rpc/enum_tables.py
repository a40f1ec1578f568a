"""The tables of the enums that several daemons share."""

from llama_orch.v2 import (
    assignment_pb2,
    device_pb2,
    model_pb2,
    pool_manager_service_pb2,
    task_event_pb2,
    worker_pb2,
)
from llorch.assignment_mode import Mode
from llorch.cache_type import CacheType
from llorch.device_kind import DeviceKind
from llorch.finish_reason import FinishReason
from llorch.gguf.facts import Pooling
from llorch.rpc.enum_table import EnumTable
from llorch.split_mode import SplitMode
from llorch.worker_state import WorkerState

ASSIGNMENT_MODES = EnumTable(Mode, assignment_pb2.AssignmentMode)
CACHE_TYPES = EnumTable(CacheType, worker_pb2.CacheType)
DEVICE_KINDS = EnumTable(DeviceKind, device_pb2.DeviceKind)
FINISH_REASONS = EnumTable(FinishReason, task_event_pb2.FinishReason)
POOLINGS = EnumTable(Pooling, pool_manager_service_pb2.PoolingType)
SPLIT_MODES = EnumTable(SplitMode, model_pb2.SplitMode)
WORKER_STATES = EnumTable(WorkerState, worker_pb2.WorkerState)
