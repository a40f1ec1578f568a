"""What is known and told about a worker."""

from dataclasses import dataclass
from datetime import datetime

from llorch.errors import Reason
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import TERMINAL, WorkerState
from pool_managerd.models.reading import Reading

LAST_LINES = 20


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How a process ended. One of `exit_code` and `signal` is set, unless it never ran or its end was not seen.

    `reason` is None if it ended as told. `end_time` is when its end was noticed. `failures_in_a_row` counts workers
    like it, this one included; 0 if it ended as told.
    """

    exit_code: int | None = None
    signal: int | None = None
    last_lines: tuple[str, ...] = ()
    reason: Reason | None = None
    message: str = ""
    end_time: datetime | None = None
    failures_in_a_row: int = 0


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker at one moment.

    `engine` is the worker's EngineInfo and `stats` its WorkerStats as they came over the wire: they are handed on
    without being parsed. `address` is "host:port" as the orchestrator reaches it, empty until ready. `access_token` is
    for the orchestrator only. `memory_mib` is measured after the load, in the order of the spec's devices. `reading`
    tells how the model's files were read ahead of the load. `answers`: it has answered within the last seconds.
    """

    spec: WorkerSpec
    state: WorkerState
    start_time: datetime
    pid: int = 0
    address: str = ""
    access_token: str = ""
    engine: bytes = b""
    memory_mib: tuple[int, ...] = ()
    ready_time: datetime | None = None
    exit: WorkerExit | None = None
    stats: bytes = b""
    load_progress: float | None = None
    reading: Reading | None = None
    answers: bool = True

    def held_mib(self) -> tuple[int, ...]:
        """What it holds per device: measured once it is loaded, reserved before; nothing once it has ended."""
        return () if self.state in TERMINAL else self.memory_mib or self.spec.reservation_mib


@dataclass(frozen=True, slots=True)
class AdoptAnswer:
    """A worker's answer to a pool manager that takes it over; `engine` and `memory_mib` as in its status, or empty."""

    worker_id: str
    engine: bytes = b""
    memory_mib: tuple[int, ...] = ()
