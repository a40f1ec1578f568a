"""NodeLinkService: nodes register here and stay registered."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from llama_orch.v2 import node_link_pb2
from llama_orch.v2 import node_link_service_pb2 as pb2
from llorch.auth import LOCALHOST
from llorch.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    Reason,
    Unauthenticated,
    invalid_field,
)
from llorch.identifiers import check_id, new_id
from llorch.logs import get_logger
from llorch.rpc.call_context import current_call
from llorch.rpc.reasons import reason_to_proto
from orchestratord.convert.link_snapshots import LinkSnapshots
from orchestratord.convert.report_limits import check_register
from orchestratord.core import events
from orchestratord.core.facts.fleet import Node, NodeState
from orchestratord.runtime import stale_epoch
from orchestratord.runtime.authority import Authority
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.kept_changes import KeptChanges
from orchestratord.version import VERSION

SERVICE = pb2.DESCRIPTOR.services_by_name["NodeLinkService"]
PROTOCOL = 1
OLDEST_PROTOCOL = 1
HEARTBEAT_MS = 1000

_FIRST_REPORT_S = 10.0
_LEFT_AT_ONCE_TIMES = 3

_log = get_logger("orchestratord")


class NodeLinkService:
    """`draining` is set when this server ends: links end then by themselves, and pool managers connect again."""

    def __init__(
        self,
        owner: BrainOwner,
        kept: KeptChanges,
        authority: Authority,
        draining: asyncio.Event,
        *,
        nodes_show_token: bool = False,
    ) -> None:
        self._kept = kept
        self._nodes_show_token = nodes_show_token
        self._owner = owner
        self._authority = authority
        self._draining = draining
        self._open_sessions: set[str] = set()
        self._left_at_once: Counter[str] = Counter()

    async def Connect(self, requests: AsyncIterator[pb2.ConnectRequest], context: Any) -> None:
        self._refuse_without_token()
        report = await _first(requests)
        register = report.register
        refusal = _refusal(register) or await self._refusal_of_authority(register)
        if refusal := refusal or self._refusal_of_a_namesake(register) or self._refusal_of_a_copy(register):
            await context.write(_directive(refused=refusal))
            return
        await self._kept.settled()  # the host may have another name by now, which a change half-way would not know
        session = new_id("link")
        snapshots = LinkSnapshots(lambda cut: _log.warning("node_report_cut", node_id=register.node_id, what=cut))
        self._owner.ask(
            events.NodeRegistered(
                node_id=register.node_id,
                session=session,
                instance_id=register.instance_id,
                boot_id=register.boot_id,
                address=register.advertise_address,
                version=register.version,
                snapshot=snapshots.take(register.snapshot),
                labels=dict(register.labels),
                host_id=register.host_id,
                applied_command_seq=report.applied_command_seq,
            )
        )
        _log.info("node_registered", node_id=register.node_id, version=register.version)
        self._open_sessions.add(session)
        try:
            with self._authority.linked(register.node_id):
                await context.write(_directive(registered=self._registered(session)))
                await self._take_reports(register, session, snapshots, requests, context)
        finally:
            self._open_sessions.discard(session)
        _log.info("node_link_ended", node_id=register.node_id)

    async def _take_reports(
        self,
        register: node_link_pb2.Register,
        session: str,
        snapshots: LinkSnapshots,
        requests: AsyncIterator[pb2.ConnectRequest],
        context: Any,
    ) -> None:
        node_id, has_reported = register.node_id, False
        draining = asyncio.create_task(self._draining.wait(), name=f"drain of the link to {node_id}")
        try:
            while (request := await _next_before(requests, draining)) is not None:
                report, has_reported = request.report, True
                self._left_at_once.pop(node_id, None)
                self._owner.ask(
                    events.NodeReported(
                        node_id, session, report.applied_command_seq, snapshots.take(report.heartbeat.snapshot)
                    )
                )
                await context.write(_directive(ack=node_link_pb2.ReportAck(report_seq=report.report_seq)))
        finally:
            draining.cancel()
            if not has_reported and not self._draining.is_set():
                self._note_left_at_once(node_id, tells_its_epoch=bool(register.control_epoch))

    def _note_left_at_once(self, node_id: str, *, tells_its_epoch: bool) -> None:
        """So does a pool manager of an earlier release that has seen a later epoch, or whose disk is full."""
        for forgotten in self._left_at_once.keys() - self._owner.state.fleet.nodes.keys():
            del self._left_at_once[forgotten]
        self._left_at_once[node_id] += 1
        if self._left_at_once[node_id] == _LEFT_AT_ONCE_TIMES:
            trouble = stale_epoch.of_a_node_that_leaves_at_once(node_id, tells_its_epoch=tells_its_epoch)
            _log.error("node_leaves_at_once", node_id=node_id, what_to_do=trouble)
            self._owner.post(events.NodeTroubled(node_id, trouble))

    async def _refusal_of_authority(self, register: node_link_pb2.Register) -> node_link_pb2.Refused | None:
        try:
            await self._authority.take_in(
                register.node_id, register.cluster_id, register.control_epoch, register.host_id
            )
        except FailedPrecondition as error:
            message = f"this orchestrator may not command the node: {error.message}"
            return node_link_pb2.Refused(reason=reason_to_proto(error.reason), message=message)
        return None

    def _refuse_without_token(self) -> None:
        """`auth_optional` is for clients: a node sees prompts, and is told what to run."""
        if self._nodes_show_token and current_call().identity == LOCALHOST.name:
            raise Unauthenticated(
                Reason.TOKEN_MISSING, "this orchestrator has a token, and takes no node that does not show it"
            )

    def _refusal_of_a_namesake(self, register: node_link_pb2.Register) -> node_link_pb2.Refused | None:
        """Refuses the second of two machines with one id, which would take turns in registering.

        A pool manager that was restarted is no second machine, nor is a machine whose link broke or went silent.
        """
        known = self._owner.state.fleet.nodes.get(register.node_id)
        if known is None or not self._is_connected(known):
            return None
        if register.instance_id == known.instance_id or register.advertise_address == known.address:
            return None
        message = (
            f"another machine, at {known.address}, is connected as '{register.node_id}'; set node_id in [pool_manager] "
            "of one of the two to another name"
        )
        return node_link_pb2.Refused(reason=reason_to_proto(Reason.NODE_ID_TAKEN), message=message)

    def _refusal_of_a_copy(self, register: node_link_pb2.Register) -> node_link_pb2.Refused | None:
        """Refuses a second machine with the data folder of a connected one: they would be taken for one host that is
        renamed all the time.
        """
        for known in self._owner.state.fleet.nodes.values():
            is_same_host = register.host_id and register.host_id == known.host_id and register.node_id != known.node_id
            if is_same_host and self._is_connected(known):
                message = (
                    f"the data folder of this pool manager is a copy of that of '{known.node_id}', which is connected; "
                    "remove host.json from the copy, and start that pool manager again"
                )
                return node_link_pb2.Refused(reason=reason_to_proto(Reason.NODE_ID_TAKEN), message=message)
        return None

    def _is_connected(self, node: Node) -> bool:
        return node.session in self._open_sessions and node.state is NodeState.READY

    def _registered(self, session: str) -> node_link_pb2.Registered:
        return node_link_pb2.Registered(
            node_session=session,
            cluster_id=self._authority.cluster_id,
            control_epoch=self._authority.control_epoch,
            heartbeat_interval_ms=HEARTBEAT_MS,
            version=VERSION,
        )


async def _first(requests: AsyncIterator[pb2.ConnectRequest]) -> node_link_pb2.NodeReport:
    """Always one with a checked `register`."""
    try:
        async with asyncio.timeout(_FIRST_REPORT_S):
            request = await anext(requests)
    except TimeoutError:
        raise DeadlineExceeded(
            Reason.INVALID_FIELD, f"no report came within {_FIRST_REPORT_S:g} s; a link begins with Register"
        ) from None
    except StopAsyncIteration:
        raise invalid_field("report", "the link ended before its first report") from None
    if request.report.WhichOneof("report") != "register":
        raise InvalidArgument(Reason.INVALID_FIELD, "report: the first report of a link has to be Register")
    register = request.report.register
    check_id(register.node_id, "register.node_id")
    check_register(register)
    if not register.advertise_address:
        raise invalid_field("register.advertise_address", "must not be empty: commands are sent there")
    return request.report


async def _next_before(
    requests: AsyncIterator[pb2.ConnectRequest], ending: "asyncio.Task[Any]"
) -> pb2.ConnectRequest | None:
    """The next report; None when the peer has closed the link, or `ending` came first."""
    reading = asyncio.ensure_future(anext(requests, None))
    try:
        await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
        return reading.result() if reading.done() else None
    finally:
        reading.cancel()


def _refusal(register: node_link_pb2.Register) -> node_link_pb2.Refused | None:
    if register.protocol_min <= PROTOCOL and register.protocol_max >= OLDEST_PROTOCOL:
        return None
    message = (
        f"this orchestrator ({VERSION}) speaks protocol {OLDEST_PROTOCOL} to {PROTOCOL}, node '{register.node_id}' "
        f"({register.version}) speaks {register.protocol_min} to {register.protocol_max}; upgrade the older of the "
        "two with `pip install --upgrade llama-orch`, the orchestrator first"
    )
    return node_link_pb2.Refused(reason=reason_to_proto(Reason.VERSION_SKEW), message=message)


def _directive(
    registered: node_link_pb2.Registered | None = None,
    ack: node_link_pb2.ReportAck | None = None,
    refused: node_link_pb2.Refused | None = None,
) -> pb2.ConnectResponse:
    return pb2.ConnectResponse(directive=node_link_pb2.NodeDirective(registered=registered, ack=ack, refused=refused))
