"""How workers of this node are run, and what follows for one of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llorch.ports import join_address
from llorch.worker_spec import WorkerSpec
from pool_managerd.models.located_model import LocatedModel
from pool_managerd.workers.command import (
    WORKER_PROGRAM,
    EngineChoice,
    EnginePolicy,
    Launch,
    worker_command,
    worker_environment,
)
from pool_managerd.workers.journal import WorkerRecord
from pool_managerd.workers.ports import PortRange

_GIB = 2**30
_TIMES_ON_CPU = 10


@dataclass(frozen=True, slots=True)
class WorkerRules:
    """By the node's settings.

    `bind_host` and `ports` are where workers listen, on any port if None. `stop_grace_s` lies between SIGTERM and
    SIGKILL. `environment` is the pool manager's own, of which workers get very little. A worker whose engine does
    nothing for `stall_s` counts as stuck; on a CPU ten times as long, since a piece of a prompt may take minutes there.
    One that has no pool manager for `orphan_grace_s` ends by itself.
    """

    bind_host: str
    stop_grace_s: float
    policy: EnginePolicy
    logs: Path
    environment: Mapping[str, str]
    ports: PortRange | None = None
    program: tuple[str, ...] = WORKER_PROGRAM
    load_base_s: float = 300.0
    load_s_per_gib: float = 20.0
    stall_s: float = 30.0
    orphan_grace_s: float = 600.0

    def load_deadline_s(self, model: LocatedModel) -> float:
        return self.load_base_s + self.load_s_per_gib * model.size_bytes / _GIB

    def stall_limit_s(self, choice: EngineChoice) -> float:
        return self.stall_s * (_TIMES_ON_CPU if choice.on_cpu else 1)

    def log_path(self, worker_id: str) -> Path:
        return self.logs / f"{worker_id}.log"

    def launch(
        self, record: WorkerRecord, spec: WorkerSpec, choice: EngineChoice, model: LocatedModel, ready_address: str
    ) -> Launch:
        command = worker_command(
            spec,
            choice,
            self.policy,
            model_path=model.path,
            bind=record.address or join_address(self.bind_host, 0),
            ready_address=ready_address,
            log_path=self.log_path(spec.worker_id),
            orphan_grace_s=self.orphan_grace_s,
            program=self.program,
        )
        environment = worker_environment(
            self.environment,
            choice,
            access_token=record.access_token,
            ready_token=record.ready_token,
            saved=self.policy.saved,
        )
        return Launch(command, environment)
