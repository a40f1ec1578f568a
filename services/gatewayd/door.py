"""What is done for every request of either API."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gatewayd.errors import Headers, http_status
from gatewayd.exchange import Exchange
from gatewayd.http.stream import RequestHead, Stream
from gatewayd.json_codec import encode_json
from gatewayd.key_check import KeyCheck
from gatewayd.security import ClientCheck, HostGuard, peer_of
from gatewayd.slots import Slots
from gatewayd.transcode import JSON
from llorch.errors import Internal, InvalidArgument, LlorchError, Reason, ResourceExhausted, Unauthenticated
from llorch.identifiers import new_id
from llorch.logs import get_logger
from llorch.rpc.call_context import CORRELATION_ID, CallInfo, enter_call
from llorch.rpc.client import Metadata

Handler = Callable[[Exchange, Metadata], Awaitable[None]]
OpenHandler = Callable[[Exchange], Awaitable[None]]
TurnAway = Callable[[Exchange, LlorchError], None]


class ErrorShape(Protocol):
    """How errors are told; `gatewayd.errors` is how /v2 does it."""

    def error_body(self, error: LlorchError, correlation_id: str, /) -> dict[str, Any]: ...

    def error_headers(self, error: LlorchError, /) -> Headers: ...


@dataclass(frozen=True, slots=True)
class Api:
    """All paths that begin with `prefix`: what handles them, and in which shape their clients get errors.

    `turn_away` is for a gateway that is full: it answers, or raises the error that it was handed.
    """

    prefix: str
    handler: Handler
    errors: ErrorShape
    turn_away: TurnAway | None = None


_CORRELATION = re.compile(r"[\x21-\x7e]{1,128}")
_log = get_logger("gatewayd")


class Door:
    """`open_paths` are the only paths that need no token; they are compared as they came over the wire.

    Of the `apis` the first whose prefix fits answers; the last one takes every path.
    """

    def __init__(
        self,
        hosts: HostGuard,
        clients: ClientCheck,
        keys: KeyCheck,
        open_paths: Mapping[str, OpenHandler],
        apis: Sequence[Api],
        slots: Slots,
    ) -> None:
        self._hosts = hosts
        self._clients = clients
        self._keys = keys
        self._open_paths = open_paths
        self._apis = apis
        self._slots = slots

    async def __call__(self, head: RequestHead, stream: Stream) -> None:
        exchange = Exchange(head, stream)
        call = _enter_call(exchange)
        api = next(api for api in self._apis if exchange.raw_path.startswith(api.prefix))
        try:
            await self._admit_and_handle(exchange, call, api)
        except LlorchError as error:
            _refuse(exchange, error, api.errors)
        except Exception as error:  # noqa: BLE001  # the last one who can answer
            _log.error("request_failed", path=exchange.raw_path, exc_info=error)
            _refuse(exchange, _internal(exchange), api.errors)

    async def _admit_and_handle(self, exchange: Exchange, call: CallInfo, api: Api) -> None:
        self._hosts.check(exchange.headers)
        _refuse_websocket(exchange)
        open_handler = self._open_paths.get(exchange.raw_path)
        if open_handler is not None:
            await open_handler(exchange)
            return
        identity, metadata = self._clients.admit(exchange)
        call.identity = identity.name
        metadata = (*metadata, (CORRELATION_ID, exchange.correlation_id))
        try:
            if self._clients.is_unchecked(exchange):
                await self._keys.ask(exchange, metadata)
            await self._handle_in_slot(exchange, metadata, api)
        except Unauthenticated as error:
            if self._clients.is_unchecked(exchange):
                self._keys.forget(metadata)
            raise self._clients.to_client(exchange, error) from None

    async def _handle_in_slot(self, exchange: Exchange, metadata: Metadata, api: Api) -> None:
        try:
            self._slots.take(exchange, asyncio.get_running_loop().time())
        except ResourceExhausted as full:
            if api.turn_away is None:
                raise
            api.turn_away(exchange, full)
            return
        try:
            await api.handler(exchange, metadata)
        finally:
            self._slots.leave(exchange)


def _enter_call(exchange: Exchange) -> CallInfo:
    shown = exchange.headers.get(CORRELATION_ID, "")
    exchange.correlation_id = shown if _CORRELATION.fullmatch(shown) else new_id("cor")
    call = CallInfo(exchange.correlation_id, identity="", peer=peer_of(exchange.client), deadline_s=None)
    enter_call(call)
    return call


def _refuse_websocket(exchange: Exchange) -> None:
    if exchange.headers.get("upgrade", "").lower() == "websocket":
        raise InvalidArgument(
            Reason.MALFORMED_REQUEST,
            "this gateway takes no websockets; streams are server-sent events, e.g. GET /v2/tasks/TASK_ID/events",
        )


def _refuse(exchange: Exchange, error: LlorchError, shape: ErrorShape) -> None:
    if exchange.started:
        _log.error("answer_broken_off", path=exchange.raw_path, reason=error.reason.value)
        exchange.abort()
        return
    body = encode_json(shape.error_body(error, exchange.correlation_id))
    exchange.answer(http_status(error), JSON, body, shape.error_headers(error))


def _internal(exchange: Exchange) -> Internal:
    return Internal(
        Reason.INTERNAL,
        f"an internal error occurred; the gateway's log has the details under {exchange.correlation_id}",
    )
