"""Calling other daemons: channels, deadlines, streams, and errors as the tree knows them.

Every call carries a deadline, or is a stream that notices when nothing comes any more.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar

import grpc

from llorch.auth import AUTHORIZATION
from llorch.errors import LlorchError, Reason, Unavailable
from llorch.rpc.authorized_channel import AuthorizedChannel
from llorch.rpc.call_context import CORRELATION_ID, call_or_none
from llorch.rpc.incoming import Incoming, ended_by_peer, is_being_cancelled
from llorch.rpc.settled import Settled, end_call
from llorch.rpc.slow_reader import slow_reader
from llorch.rpc.status import error_from_rpc
from llorch.rpc.transport_options import channel_options

__all__ = ["DuplexCall", "call", "error_from_rpc", "open_channel", "open_stream"]

Request = TypeVar("Request")
Response = TypeVar("Response")
Metadata = Sequence[tuple[str, str]]


def open_channel(
    address: str,
    *,
    token: str | Callable[[], str | None] | None = None,
    tls: grpc.ChannelCredentials | None = None,
    max_connections: int = 1,
) -> grpc.aio.Channel:
    """A channel to `host:port`; it connects when it is used, and is to be closed.

    Has to be made inside of the running loop. With a token every call on the channel shows it; one that may change is
    asked for at each call. A server takes `CALLS_PER_CONNECTION` calls at once on a connection; what is beyond that
    waits in the channel, unless it may have further connections.
    """
    options = channel_options(max_connections=max_connections)
    if tls is None:
        channel = grpc.aio.insecure_channel(address, options=options)
    else:
        channel = grpc.aio.secure_channel(address, tls, options=options)
    if not token:
        return channel
    return AuthorizedChannel(channel, token if callable(token) else lambda: token)


async def call(
    method: "grpc.aio.UnaryUnaryMultiCallable[Request, Response]",
    request: Request,
    *,
    timeout_s: float,
    token: str | None = None,
    metadata: Metadata = (),
) -> Response:
    """One unary request, e.g. of `stub.GetState`. A failure is raised as a leaf of the error tree."""
    try:
        rpc = method(request, timeout=timeout_s, metadata=_with_context(metadata, token))
        return await Settled(rpc, partial(end_call, rpc))
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from error
    except asyncio.CancelledError:
        if is_being_cancelled():
            raise
        raise ended_by_peer() from None
    except grpc.aio.UsageError as error:
        raise _channel_closed() from error


@asynccontextmanager
async def open_stream(
    method: "grpc.aio.UnaryStreamMultiCallable[Request, Response]",
    request: Request,
    *,
    timeout_s: float | None = None,
    token: str | None = None,
    metadata: Metadata = (),
    idle_timeout_s: float | None = None,
) -> AsyncIterator[Incoming[Response]]:
    """A server stream; leaving the block cancels the call.

    `timeout_s` bounds the whole stream, `idle_timeout_s` the wait for one message: past it the stream is
    over and DeadlineExceeded is raised. A timeout of your own around a single message would end the whole
    stream as well, because grpc.aio cancels the call with the read.
    """
    try:
        rpc = method(request, timeout=timeout_s, metadata=_with_context(metadata, token))
    except grpc.aio.UsageError as error:
        raise _channel_closed() from error
    incoming: Incoming[Response] = Incoming(rpc, idle_timeout_s)
    try:
        yield incoming
    finally:
        incoming.stop_watching()
        end_call(rpc)


class DuplexCall(Generic[Request, Response]):
    """A bidirectional stream, as an async context manager; iterate over what comes in.

    One task reads and one task writes. Leaving the block cancels the call; `close` ends it in order. Why a peer
    refused is certain only for the reading task: a write at the same moment may know only that the call is over.
    `write_timeout_s` bounds each `send`: past it the peer does not read any more, and the call is over.
    """

    def __init__(
        self,
        method: "grpc.aio.StreamStreamMultiCallable[Request, Response]",
        *,
        timeout_s: float | None = None,
        token: str | None = None,
        metadata: Metadata = (),
        idle_timeout_s: float | None = None,
        write_timeout_s: float = 10.0,
    ) -> None:
        self._method = method
        self._timeout_s = timeout_s
        self._metadata = _with_context(metadata, token)
        self._idle_timeout_s = idle_timeout_s
        self._write_timeout_s = write_timeout_s

    async def __aenter__(self) -> Self:
        self._rpc = self._method(timeout=self._timeout_s, metadata=self._metadata)
        self._incoming: Incoming[Response] = Incoming(self._rpc, self._idle_timeout_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._incoming.stop_watching()
        end_call(self._rpc)

    def __aiter__(self) -> AsyncIterator[Response]:
        return self._incoming

    async def send(self, message: Request) -> None:
        await self._within_deadline(self._rpc.write(message))

    async def close(self) -> None:
        """Half-closes the stream: sends nothing more; what the peer still sends can be read."""
        await self._within_deadline(self._rpc.done_writing())

    async def _within_deadline(self, writing: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await Settled(writing, partial(end_call, self._rpc))
        except TimeoutError:
            raise slow_reader(self._write_timeout_s) from None
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        except asyncio.InvalidStateError:
            raise await self._how_it_ended() from None
        except asyncio.CancelledError:
            if is_being_cancelled():
                raise
            raise ended_by_peer() from None

    async def _how_it_ended(self) -> LlorchError:
        """The status of the call, which grpc.aio does not raise for a write after the end."""
        code = await self._rpc.code()
        if code is grpc.StatusCode.OK:
            return ended_by_peer()
        trailing = await self._rpc.trailing_metadata()
        return error_from_rpc(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, await self._rpc.details()))


def _channel_closed() -> Unavailable:
    """A call that comes as its channel is closed is no bug: the owner of the channel does not know every caller."""
    return Unavailable(Reason.UPSTREAM_UNAVAILABLE, "the channel to the other side is closed")


def _with_context(metadata: Metadata, token: str | None) -> tuple[tuple[str, str], ...]:
    """Adds the token, and the correlation id of the call that is being served, if any."""
    entries = tuple(metadata)
    if token is not None:
        entries += ((AUTHORIZATION, f"Bearer {token}"),)
    served = call_or_none()
    if served is not None and not any(key == CORRELATION_ID for key, _ in entries):
        entries += ((CORRELATION_ID, served.correlation_id),)
    return entries
