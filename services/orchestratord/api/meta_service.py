"""MetaService: what this system is."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from google.api import httpbody_pb2

from llama_orch.v2 import meta_service_pb2 as pb2
from llorch.options.generation import MAX_INPUT_BYTES
from llorch.rpc.call_context import current_call
from orchestratord.api.not_yet import PartialServicer
from orchestratord.api.pages import key_of, size_of, token_of
from orchestratord.convert import audit, capabilities
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.store.interface import Store
from orchestratord.version import VERSION
from orchestratord.views import capabilities as view_capabilities

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

    async def GetIdentity(self, request: pb2.GetIdentityRequest, context: Any) -> pb2.GetIdentityResponse:
        call = current_call()
        return pb2.GetIdentityResponse(name=call.identity, app=call.app)

    async def GetCapabilities(self, request: pb2.GetCapabilitiesRequest, context: Any) -> pb2.GetCapabilitiesResponse:
        state = self._owner.state
        return pb2.GetCapabilitiesResponse(
            api_version="v2",
            version=VERSION,
            models=[capabilities.model_to_proto(view) for view in view_capabilities.of_models(state)],
            pools=[capabilities.pool_to_proto(view) for view in view_capabilities.of_pools(state)],
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
