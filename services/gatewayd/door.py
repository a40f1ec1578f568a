"""The ASGI application: what is done for every request of either API."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gatewayd.errors import Headers, http_status
from gatewayd.exchange import ClientGone, Exchange, Receive, Scope, Send
from gatewayd.json_codec import encode_json
from gatewayd.security import ClientCheck, HostGuard, peer_of
from gatewayd.transcode import JSON
from llorch.errors import Internal, LlorchError, Reason, ResourceExhausted, Unauthenticated
from llorch.identifiers import new_id
from llorch.logs import get_logger
from llorch.rpc.call_context import CORRELATION_ID, CallInfo, enter_call
from llorch.rpc.client import Metadata

Handler = Callable[[Exchange, Metadata], Awaitable[None]]
OpenHandler = Callable[[Exchange], Awaitable[None]]
TurnAway = Callable[[Exchange, LlorchError], Awaitable[None]]


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
_RETRY_WHEN_FULL_MS = 1000
_log = get_logger("gatewayd")


class Door:
    """`open_paths` are the only paths that need no token; they are compared as they came over the wire.

    Of the `apis` the first whose prefix fits answers; the last one takes every path.
    """

    def __init__(
        self,
        hosts: HostGuard,
        clients: ClientCheck,
        open_paths: Mapping[str, OpenHandler],
        apis: Sequence[Api],
        max_requests: int,
    ) -> None:
        self._hosts = hosts
        self._clients = clients
        self._open_paths = open_paths
        self._apis = apis
        self._max_requests = max_requests
        self._serving = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._serve(Exchange(scope, receive, send))
        else:
            await send({"type": "websocket.close"})

    async def _serve(self, exchange: Exchange) -> None:
        call = _enter_call(exchange)
        api = next(api for api in self._apis if exchange.raw_path.startswith(api.prefix))
        self._serving += 1
        try:
            await self._admit_and_handle(exchange, call, api)
        except ClientGone:
            _log.debug("client_gone", path=exchange.raw_path)
        except LlorchError as error:
            await _refuse(exchange, error, api.errors)
        except Exception as error:  # noqa: BLE001  # the last one who can answer
            _log.error("request_failed", path=exchange.raw_path, exc_info=error)
            await _refuse(exchange, _internal(exchange), api.errors)
        finally:
            self._serving -= 1

    async def _admit_and_handle(self, exchange: Exchange, call: CallInfo, api: Api) -> None:
        self._hosts.check(exchange.headers)
        open_handler = self._open_paths.get(exchange.raw_path)
        if open_handler is not None:
            await open_handler(exchange)
            return
        if self._serving > self._max_requests:
            full = ResourceExhausted(
                Reason.TOO_MANY_CALLS,
                f"this gateway serves {self._max_requests} requests already",
                retry_after_ms=_RETRY_WHEN_FULL_MS,
            )
            if api.turn_away is None:
                raise full
            await api.turn_away(exchange, full)
            return
        identity, metadata = self._clients.admit(exchange)
        call.identity = identity.name
        try:
            await api.handler(exchange, (*metadata, (CORRELATION_ID, exchange.correlation_id)))
        except Unauthenticated as error:
            raise self._clients.to_client(exchange, error) from None


def _enter_call(exchange: Exchange) -> CallInfo:
    shown = exchange.headers.get(CORRELATION_ID, "")
    exchange.correlation_id = shown if _CORRELATION.fullmatch(shown) else new_id("cor")
    call = CallInfo(exchange.correlation_id, identity="", peer=peer_of(exchange.client), deadline_s=None)
    enter_call(call)
    return call


async def _refuse(exchange: Exchange, error: LlorchError, shape: ErrorShape) -> None:
    if exchange.started:
        _log.error("answer_broken_off", path=exchange.raw_path, reason=error.reason.value)
        return
    body = encode_json(shape.error_body(error, exchange.correlation_id))
    await exchange.answer(http_status(error), JSON, body, shape.error_headers(error))


def _internal(exchange: Exchange) -> Internal:
    return Internal(
        Reason.INTERNAL,
        f"an internal error occurred; the gateway's log has the details under {exchange.correlation_id}",
    )
