"""Models on their way into memory, and those that did not get there."""

from datetime import datetime, timedelta

from llama_orch.v2 import fleet_service_pb2 as pb2
from orchestratord.convert.runs import from_reason
from orchestratord.core.facts.loads import LoadPhase
from orchestratord.views.loads import LoadFailureView, LoadView

_PHASES = {
    LoadPhase.WAITING: pb2.LOAD_PHASE_WAITING,
    LoadPhase.STAGING: pb2.LOAD_PHASE_STAGING,
    LoadPhase.MAKING_ROOM: pb2.LOAD_PHASE_MAKING_ROOM,
    LoadPhase.STARTING: pb2.LOAD_PHASE_STARTING,
}


def load_to_proto(view: LoadView) -> pb2.LoadState:
    load = view.load
    return pb2.LoadState(
        worker_id=load.load_id,
        model=load.model,
        phase=_PHASES[load.phase],
        node_id=load.node_id,
        device_ids=load.plan.device_ids if load.plan else (),
        message=view.message,
    )


def failure_to_proto(view: LoadFailureView, wall: datetime) -> pb2.LoadFailure:
    """`wall` is now."""
    failure = view.failure
    shown = pb2.LoadFailure(
        model=failure.model,
        node_id=failure.node_id,
        reason=from_reason(failure.reason),
        message=failure.message,
        worker_id=failure.worker_id,
    )
    shown.time.FromDatetime(wall - timedelta(seconds=view.ago_s))
    return shown
