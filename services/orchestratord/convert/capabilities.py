"""What models and pools can do, for callers."""

from llama_orch.v2 import meta_service_pb2 as pb2
from llama_orch.v2 import worker_pb2
from orchestratord.views.capabilities import ModelCapabilitiesView, PoolEnginesView


def model_to_proto(view: ModelCapabilitiesView) -> pb2.ModelCapabilities:
    shown = pb2.ModelCapabilities(model=view.model, context_max=view.context_max)
    if view.worker is not None and isinstance(view.worker.report, worker_pb2.Worker):
        shown.capabilities.CopyFrom(view.worker.report.engine.capabilities)
    return shown


def pool_to_proto(view: PoolEnginesView) -> pb2.PoolEngines:
    return pb2.PoolEngines(pool_id=view.pool_id, engine_versions=view.engine_versions)
