"""Models on their way into memory, and those that did not get there."""

from datetime import datetime, timedelta

from llama_orch.v2 import fleet_service_pb2 as pb2
from llorch.rpc.enum_table import EnumTable
from llorch.rpc.reasons import reason_to_proto
from orchestratord.core.facts.loads import LoadPhase
from orchestratord.views.loads import LoadFailureView, LoadView

_PHASES = EnumTable(LoadPhase, pb2.LoadPhase)


def load_to_proto(view: LoadView) -> pb2.LoadState:
    load = view.load
    return pb2.LoadState(
        worker_id=load.load_id,
        model=load.model,
        phase=_PHASES.to_proto(load.phase),
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
        reason=reason_to_proto(failure.reason),
        message=failure.message,
        worker_id=failure.worker_id,
    )
    shown.time.FromDatetime(wall - timedelta(seconds=view.ago_s))
    return shown
