"""Tasks: what clients ask for, and what they are shown."""

import hashlib
import secrets
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from llama_orch.v2 import run_pb2, task_pb2
from llorch.errors import InvalidArgument, PermissionDenied, Reason, Unimplemented, invalid_field
from llorch.identifiers import check_id
from orchestratord.convert.generate_checks import check_generate
from orchestratord.core.state import BrainState
from orchestratord.core.task import Task, TaskRequest, TaskState

DEFAULT_PRIORITY = "interactive"

_STATES = {
    TaskState.QUEUED: task_pb2.TASK_STATE_QUEUED,
    TaskState.RUNNING: task_pb2.TASK_STATE_RUNNING,
    TaskState.COMPLETED: task_pb2.TASK_STATE_COMPLETED,
    TaskState.FAILED: task_pb2.TASK_STATE_FAILED,
    TaskState.CANCELLED: task_pb2.TASK_STATE_CANCELLED,
    TaskState.EXPIRED: task_pb2.TASK_STATE_EXPIRED,
}
STATE_BY_PROTO = {proto: state for state, proto in _STATES.items()}


def to_request(spec: task_pb2.TaskSpec, *, task_id: str, correlation_id: str, durable: bool) -> TaskRequest:
    """Check everything that a client sent, and make the request that the brain decides on.

    A seed is drawn here if the client gave none, so that the task can be repeated.
    """
    _check_spec(spec)
    # Whether it outlives its reader is part of what was asked for, so a repeated request_id does not change it.
    digest = hashlib.sha256(spec.SerializeToString(deterministic=True) + bytes([durable])).hexdigest()
    work = run_pb2.RunSpec(generate=spec.generate, deterministic=spec.deterministic)
    sampling = work.generate.sampling
    if not sampling.HasField("seed"):
        sampling.seed = secrets.randbits(63)
    return TaskRequest(
        task_id=task_id,
        model=spec.model,
        payload=work.SerializeToString(),
        content_digest=digest,
        seed=sampling.seed,
        priority=spec.priority or DEFAULT_PRIORITY,
        session_id=spec.session_id,
        request_id=spec.request_id,
        correlation_id=correlation_id,
        deadline_s=spec.deadline_ms / 1000 if spec.HasField("deadline_ms") else None,
        durable=durable,
    )


def to_run_spec(request: TaskRequest, remaining_s: float | None) -> run_pb2.RunSpec:
    spec = run_pb2.RunSpec.FromString(request.payload)
    if remaining_s is not None:
        spec.remaining_ms = max(1, round(remaining_s * 1000))
    return spec


def to_proto(task: Task, state: BrainState, log_entries: int, admitted_at: datetime) -> task_pb2.Task:
    request = task.request
    create_time = Timestamp()
    create_time.FromDatetime(admitted_at)
    shown = task_pb2.Task(
        task_id=task.task_id,
        state=_STATES[task.state],
        model=request.model,
        app=request.app,
        priority=request.priority,
        session_id=request.session_id,
        create_time=create_time,
        attempts=task.attempts,
        worker_id=task.attempt.worker_id if task.attempt and task.state is TaskState.RUNNING else "",
        seed=request.seed,
        correlation_id=request.correlation_id,
        durable=request.durable,
        log_entries=log_entries,
        request_id=request.request_id,
    )
    if task.task_id in state.queue:
        shown.queue_position = state.queue.position(task.task_id)
    return shown


def _check_spec(spec: task_pb2.TaskSpec) -> None:
    kind = spec.WhichOneof("work")
    if kind is None:
        raise invalid_field("task", "needs work: set 'generate'")
    if kind != "generate":
        raise Unimplemented(
            Reason.NOT_IMPLEMENTED,
            f"{kind}: this release only generates text; send 'generate'",
            metadata={"work": kind},
        )
    if not spec.model:
        raise invalid_field("model", "must not be empty; `llorch models` lists the models")
    if spec.app:
        raise PermissionDenied(Reason.NOT_PERMITTED, "app: is set from the key that is used; leave it out")
    for name in ("session_id", "request_id"):
        if value := getattr(spec, name):
            check_id(value, name)
    if spec.HasField("deadline_ms") and spec.deadline_ms < 1:
        raise invalid_field("deadline_ms", "has to be at least 1")
    _refuse_unsupported(spec)
    check_generate(spec.generate)


def _refuse_unsupported(spec: task_pb2.TaskSpec) -> None:
    """What this release does not do is refused by name, never ignored."""
    for name, is_set in (
        ("placement", spec.HasField("placement")),
        ("deterministic", spec.deterministic),
        ("adapters", bool(spec.adapters)),
    ):
        if is_set:
            raise InvalidArgument(
                Reason.UNSUPPORTED_OPTION, f"{name}: comes with a later release; leave it out", metadata={"field": name}
            )
