"""The orchestrator's end of a node link, for pool managers under test: takes reports, and sends what the test sets."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from llama_orch.v2 import error_reason_pb2, node_link_pb2, node_link_service_pb2
from llama_orch.v2.node_link_service_pb2_grpc import add_NodeLinkServiceServicer_to_server
from llorch.auth import BearerAuth
from llorch.rpc.server import RpcServer

NodeReport = node_link_pb2.NodeReport


class OrchestratorStub:
    def __init__(self) -> None:
        self.cluster_id = "cluster"
        self.control_epoch = 1
        self.acknowledges = True
        self.refusal: node_link_pb2.Refused | None = None
        self.links = 0
        self.reports: list[NodeReport] = []
        self._came = asyncio.Event()

    async def Connect(self, requests: AsyncIterator[Any], context: Any) -> None:  # noqa: N802
        self.links += 1
        async for request in requests:
            self.reports.append(request.report)
            self._came.set()
            if self.refusal is not None:
                await self._say(context, refused=self.refusal)
                return
            if request.report.WhichOneof("report") == "register":
                await self._say(context, registered=self._registered())
            elif self.acknowledges:
                await self._say(context, ack=node_link_pb2.ReportAck(report_seq=request.report.report_seq))

    def refuse(self, message: str) -> None:
        self.refusal = node_link_pb2.Refused(reason=error_reason_pb2.ERROR_REASON_VERSION_SKEW, message=message)

    async def wait_report(self, wanted: Callable[[NodeReport], bool], within_s: float = 10.0) -> NodeReport:
        """The first report, of those that came and those that come, that is wanted."""
        looked_at = 0
        async with asyncio.timeout(within_s):
            while True:
                for report in self.reports[looked_at:]:
                    if wanted(report):
                        return report
                looked_at = len(self.reports)
                self._came.clear()
                await self._came.wait()

    def _registered(self) -> node_link_pb2.Registered:
        return node_link_pb2.Registered(
            node_session=f"session-{self.links}",
            cluster_id=self.cluster_id,
            control_epoch=self.control_epoch,
            heartbeat_interval_ms=100,
        )

    async def _say(self, context: Any, **directive: Any) -> None:
        response = node_link_service_pb2.ConnectResponse(directive=node_link_pb2.NodeDirective(**directive))
        await context.write(response)


def snapshot_of(report: NodeReport) -> node_link_pb2.NodeSnapshot:
    if report.WhichOneof("report") == "register":
        return report.register.snapshot
    return report.heartbeat.snapshot


@asynccontextmanager
async def serving(stub: OrchestratorStub, *, bind: str = "127.0.0.1:0", token: str | None = None) -> AsyncIterator[str]:
    """The address that the stub is served at."""
    server = RpcServer(name="orchestrator-stub", bind=bind, authenticator=BearerAuth(token))
    server.add("llama_orch.v2.NodeLinkService", add_NodeLinkServiceServicer_to_server, stub)
    try:
        yield await server.start()
    finally:
        await server.stop(0.0)
