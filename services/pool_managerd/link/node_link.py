"""The client side of `NodeLinkService.Connect`: kept up for as long as the pool manager runs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from llama_orch.v2 import node_link_pb2, node_link_service_pb2
from llama_orch.v2.node_link_service_pb2_grpc import NodeLinkServiceStub
from llorch.background import raise_if_cancelled
from llorch.clock import Clock
from llorch.errors import FailedPrecondition, LlorchError, PermissionDenied, Reason, Unauthenticated, Unavailable
from llorch.logs import get_logger
from llorch.rpc.client import DuplexCall, open_channel
from llorch.rpc.reasons import reason_of_proto
from pool_managerd.bell import Bell
from pool_managerd.control import ControlGuard
from pool_managerd.convert.snapshots import to_snapshot
from pool_managerd.link.backoff import Backoff
from pool_managerd.link.report_plan import ReportPlan
from pool_managerd.node_state import NodeState

_log = get_logger(__name__)

Call = DuplexCall[node_link_service_pb2.ConnectRequest, node_link_service_pb2.ConnectResponse]

_PROTOCOL_VERSION = 1
_FIRST_RETRY_S = 0.1
_HIGHEST_RETRY_S = 2.0  # with what comes after it, streams go on within 3 s once the orchestrator answers
_RETRY_WHEN_REFUSED_S = 30.0
_RETRY_WHEN_TAKEN_S = 5.0  # the other machine may be this one, before its power failed; the other orchestrator may end
_DEFAULT_HEARTBEAT_S = 1.0
_SILENCE_S = 10.0  # the orchestrator acknowledges every heartbeat: this long means that several were lost
_SHORTEST_GAP_S = 0.02  # changes that come together become one report
_WHEN_UNAUTHENTICATED = (
    "set token in [pool_manager] (LLORCH_POOL_MANAGER_TOKEN) to the token of the orchestrator and start again"
)
_WHEN_BEHIND = (
    "if another orchestrator took this one's place, end this one; if an older copy of its database was put back, "
    "upgrade the orchestrator, which then mends it by itself, or stop this pool manager, delete control.json in its "
    "data directory, and start it again"
)
_WHEN_ANOTHER_CLUSTER = (
    "nothing if the orchestrator has begun with a new database; workers of before go on under it; if its database was "
    "lost, put a copy of it back to have its models, apps and rules again"
)


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """How this node presents itself. `instance_id` tells a restart of the pool manager from a reconnect, `host_id` the
    host, whatever its `node_id` is by now; it is asked at every registration. `boot_id` is drawn when the host boots.
    """

    node_id: str
    instance_id: str
    version: str
    advertise_address: str
    labels: Mapping[str, str] = field(default_factory=dict)
    host_id: Callable[[], str] = str
    boot_id: str = ""


class LinkRefused(FailedPrecondition):
    """The orchestrator does not take this node; trying again soon does not help."""


class NodeLink:
    """Losing the link changes nothing here: workers go on, and the next link reports them."""

    def __init__(
        self,
        *,
        orchestrator: str,
        token: str | None,
        identity: NodeIdentity,
        state: Callable[[], NodeState],
        bell: Bell,
        guard: ControlGuard,
        ends_known: Callable[[Iterable[str]], None],
        clock: Clock,
    ) -> None:
        self._orchestrator = orchestrator
        self._token = token
        self._identity = identity
        self._state = state
        self._bell = bell
        self._guard = guard
        self._ends_known = ends_known
        self._clock = clock
        self._backoff = Backoff(_FIRST_RETRY_S, _HIGHEST_RETRY_S)
        self._told = ""

    async def run(self) -> None:
        while True:
            try:
                async with open_channel(self._orchestrator, token=self._token) as channel:
                    await self._hold(NodeLinkServiceStub(channel))
            except* LlorchError as problems:
                wait_s = self._after(_first(problems))
            raise_if_cancelled()
            await asyncio.sleep(wait_s)

    async def _hold(self, stub: NodeLinkServiceStub) -> None:
        """One link from its registration to its end, which is always an error."""
        plan = ReportPlan()
        async with Call(stub.Connect, idle_timeout_s=_SILENCE_S) as call:
            await self._report(call, plan, first=True)
            directives = aiter(call)
            heartbeat_s = self._registered(await _next(directives))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_reports(call, plan, heartbeat_s), name="node link reports")
                while True:
                    self._take(await _next(directives), plan)

    async def _send_reports(self, call: Call, plan: ReportPlan, heartbeat_s: float) -> None:
        while True:
            seen = self._bell.rings
            await self._report(call, plan)
            await asyncio.sleep(_SHORTEST_GAP_S)
            await self._bell.wait_rung(seen, heartbeat_s - _SHORTEST_GAP_S)

    async def _report(self, call: Call, plan: ReportPlan, *, first: bool = False) -> None:
        # The sequence is read before the state, so that it never claims more than the state shows.
        applied = self._guard.applied_command_seq
        news = plan.next_report(self._state(), self._clock.monotonic())
        snapshot = to_snapshot(news, self._identity.node_id, with_endpoints=True)
        report = node_link_pb2.NodeReport(report_seq=plan.report_seq, applied_command_seq=applied)
        if first:
            report.register.CopyFrom(self._register(snapshot))
        else:
            report.heartbeat.snapshot.CopyFrom(snapshot)
        await call.send(node_link_service_pb2.ConnectRequest(report=report))

    def _register(self, snapshot: node_link_pb2.NodeSnapshot) -> node_link_pb2.Register:
        return node_link_pb2.Register(
            node_id=self._identity.node_id,
            instance_id=self._identity.instance_id,
            version=self._identity.version,
            protocol_min=_PROTOCOL_VERSION,
            protocol_max=_PROTOCOL_VERSION,
            advertise_address=self._identity.advertise_address,
            labels=self._identity.labels,
            snapshot=snapshot,
            host_id=self._identity.host_id(),
            boot_id=self._identity.boot_id,
            cluster_id=self._guard.authority.cluster_id,
            control_epoch=self._guard.authority.control_epoch,
        )

    def _registered(self, directive: node_link_pb2.NodeDirective) -> float:
        """Seconds between heartbeats, as the orchestrator wants them."""
        _raise_if_refused(directive)
        registered = directive.registered
        before = self._guard.authority
        self._guard.follow(registered.cluster_id, registered.control_epoch)
        if before.cluster_id not in ("", registered.cluster_id):
            _log.warning(
                "follows_another_cluster",
                before=before.cluster_id,
                now=registered.cluster_id,
                what_to_do=_WHEN_ANOTHER_CLUSTER,
            )
        self._backoff.reset()
        self._told = ""
        _log.info(
            "registered",
            orchestrator=self._orchestrator,
            node_id=self._identity.node_id,
            node_session=registered.node_session,
            orchestrator_version=registered.version,
        )
        return registered.heartbeat_interval_ms / 1000 or _DEFAULT_HEARTBEAT_S

    def _take(self, directive: node_link_pb2.NodeDirective, plan: ReportPlan) -> None:
        _raise_if_refused(directive)
        if directive.WhichOneof("directive") == "ack":
            self._ends_known(plan.acknowledged(directive.ack.report_seq))

    def _after(self, problem: LlorchError) -> float:
        """Logs each problem once, however often it happens again; returns how long to wait."""
        told = f"{problem.reason}: {problem.message}"
        refused = isinstance(problem, (LinkRefused, Unauthenticated, PermissionDenied))
        if told != self._told:
            self._told = told
            say, event = (
                (_log.error, "orchestrator_refuses_this_node") if refused else (_log.warning, "orchestrator_link_down")
            )
            say(
                event,
                orchestrator=self._orchestrator,
                reason=problem.reason,
                why=problem.message,
                **_what_to_do(problem),
            )
        if refused and problem.reason in (Reason.NODE_ID_TAKEN, Reason.STALE_EPOCH):
            return _RETRY_WHEN_TAKEN_S
        return _RETRY_WHEN_REFUSED_S if refused else self._backoff.next_s()


async def _next(directives: AsyncIterator[node_link_service_pb2.ConnectResponse]) -> node_link_pb2.NodeDirective:
    try:
        return (await anext(directives)).directive
    except StopAsyncIteration:
        raise Unavailable(Reason.UPSTREAM_UNAVAILABLE, "the orchestrator ended the link") from None


def _raise_if_refused(directive: node_link_pb2.NodeDirective) -> None:
    if directive.WhichOneof("directive") == "refused":
        raise LinkRefused(reason_of_proto(directive.refused.reason), directive.refused.message)


def _what_to_do(problem: LlorchError) -> dict[str, str]:
    """What a refusal does not say itself."""
    if isinstance(problem, Unauthenticated):
        return {"what_to_do": _WHEN_UNAUTHENTICATED}
    if problem.reason is Reason.STALE_EPOCH and not isinstance(problem, LinkRefused):
        return {"what_to_do": _WHEN_BEHIND}
    return {}


def _first(problems: BaseExceptionGroup[LlorchError]) -> LlorchError:
    problem = problems.exceptions[0]
    return _first(problem) if isinstance(problem, BaseExceptionGroup) else problem
