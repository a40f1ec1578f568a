"""MetaService: what this system is."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from google.api import httpbody_pb2

from llama_orch.v2 import meta_service_pb2 as pb2
from llorch.options.generation import MAX_INPUT_BYTES
from llorch.worker_state import WorkerState
from orchestratord.api.not_yet import PartialServicer
from orchestratord.api.pages import key_of, size_of, token_of
from orchestratord.convert import audit
from orchestratord.core.facts.model import Model
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.store.interface import Store
from orchestratord.version import VERSION

if TYPE_CHECKING:
    from orchestratord.metrics.collector import OrchestratorMetrics


class MetaService(PartialServicer, service=pb2.DESCRIPTOR.services_by_name["MetaService"]):
    def __init__(
        self,
        owner: BrainOwner,
        metrics: Callable[[], "OrchestratorMetrics"],
        store: Store,
        unimplemented: tuple[str, ...],
    ) -> None:
        self._owner = owner
        self._metrics = metrics
        self._store = store
        self._unimplemented = sorted((*unimplemented, *self.unimplemented))

    async def GetCapabilities(self, request: pb2.GetCapabilitiesRequest, context: Any) -> pb2.GetCapabilitiesResponse:
        state = self._owner.state
        return pb2.GetCapabilitiesResponse(
            api_version="v2",
            version=VERSION,
            models=[self._model(model) for model in state.catalog.all()],
            pools=self._pools(),
            limits=pb2.Limits(
                queue_capacity=state.config.queue_capacity,
                request_max_kib=MAX_INPUT_BYTES // 1024,
                task_retention_ms=round(state.config.task_retention_s * 1000),
            ),
            priorities=state.config.priorities,
            unimplemented=self._unimplemented,
        )

    async def GetMetrics(self, request: pb2.GetMetricsRequest, context: Any) -> pb2.GetMetricsResponse:
        metrics = self._metrics()
        return pb2.GetMetricsResponse(
            body=httpbody_pb2.HttpBody(content_type=metrics.content_type, data=metrics.text())
        )

    async def ListAudit(self, request: pb2.ListAuditRequest, context: Any) -> pb2.ListAuditResponse:
        size, before_seq = size_of(request.page_size), audit.seq_of(key_of(request.page_token))
        entries = await self._store.audit(before_seq, size + 1)
        page = entries[:size]
        return pb2.ListAuditResponse(
            entries=[audit.to_proto(entry) for entry in page],
            next_page_token=token_of(str(page[-1].seq)) if len(entries) > size else "",
        )

    def _model(self, model: Model) -> pb2.ModelCapabilities:
        """Capabilities are what an engine declares, so they are absent while no worker has the model."""
        shown = pb2.ModelCapabilities(model=model.name, context_max=model.context)
        for worker in self._owner.state.fleet.workers_of_model(model.name):
            report: Any = worker.report
            if worker.state is WorkerState.READY and report is not None and report.HasField("engine"):
                shown.context_max = report.engine.context_per_slot
                shown.capabilities.CopyFrom(report.engine.capabilities)
        return shown

    def _pools(self) -> list[pb2.PoolEngines]:
        state = self._owner.state
        engines: dict[str, set[str]] = {}
        for node in state.fleet.nodes.values():
            for pool in node.pools.values():
                engines[pool.pool_id] = {
                    f"{worker.engine.engine} {worker.engine.engine_version}"
                    for worker in state.fleet.workers_on(node.node_id)
                    if worker.engine and set(worker.spec.device_ids) <= set(pool.device_ids)
                }
        return [pb2.PoolEngines(pool_id=pool, engine_versions=sorted(found)) for pool, found in sorted(engines.items())]
