"""Calls about the orchestrator itself: its capabilities, its metrics and its audit log."""

from llama_orch.v2 import audit_pb2, meta_service_pb2
from llorch.sdk.caller import Caller
from llorch.sdk.fill import filled

_LARGEST_PAGE = 1000


class MetaCalls(Caller):
    async def identity(self) -> meta_service_pb2.GetIdentityResponse:
        """Who this client is to the orchestrator: an app, by its key, or the operator."""
        answer: meta_service_pb2.GetIdentityResponse = await self._ask(
            self._stubs.meta.GetIdentity, meta_service_pb2.GetIdentityRequest()
        )
        return answer

    async def capabilities(self) -> meta_service_pb2.GetCapabilitiesResponse:
        """Versions, what each model can do, limits and priority classes."""
        request = meta_service_pb2.GetCapabilitiesRequest()
        answer: meta_service_pb2.GetCapabilitiesResponse = await self._ask(self._stubs.meta.GetCapabilities, request)
        return answer

    async def metrics(self) -> str:
        """Metrics in Prometheus' text exposition format."""
        answer: meta_service_pb2.GetMetricsResponse = await self._ask(
            self._stubs.meta.GetMetrics, meta_service_pb2.GetMetricsRequest()
        )
        return answer.body.data.decode()

    async def audit(self, most: int = 100) -> list[audit_pb2.AuditEntry]:
        """The last changes that callers asked for, newest first; at most `most` of them."""
        request = filled(meta_service_pb2.ListAuditRequest, page_size=min(most, _LARGEST_PAGE))
        return await self._all_pages(self._stubs.meta.ListAudit, request, lambda page: page.entries, most=most)
