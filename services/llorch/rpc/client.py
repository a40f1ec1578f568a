"""Calling other daemons: channels, deadlines, streams, and errors as the tree knows them.

Every call carries a deadline, or is a stream that notices when nothing comes any more.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc

from llorch.auth import AUTHORIZATION
from llorch.errors import DeadlineExceeded, LlorchError, Reason, Unavailable
from llorch.rpc.authorized_channel import AuthorizedChannel
from llorch.rpc.call_context import CORRELATION_ID, call_or_none
from llorch.rpc.slow_reader import slow_reader
from llorch.rpc.status import error_from_rpc
from llorch.rpc.transport_options import channel_options

Request = TypeVar("Request")
Response = TypeVar("Response")
Metadata = Sequence[tuple[str, str]]

# When our own loop stood still for longer, what the peer sent in the meantime has not been looked at yet.
_OWN_STALL_S = 1.0


def open_channel(
    address: str, *, token: str | None = None, tls: grpc.ChannelCredentials | None = None
) -> grpc.aio.Channel:
    """A channel to `host:port` that connects when it is used; close it. Call this inside of the running loop.

    With a token every call on the channel shows it.
    """
    if tls is None:
        channel = grpc.aio.insecure_channel(address, options=channel_options())
    else:
        channel = grpc.aio.secure_channel(address, tls, options=channel_options())
    return AuthorizedChannel(channel, token) if token else channel


async def call(
    method: "grpc.aio.UnaryUnaryMultiCallable[Request, Response]",
    request: Request,
    *,
    timeout_s: float,
    token: str | None = None,
    metadata: Metadata = (),
) -> Response:
    """One unary call, e.g. `await call(stub.GetState, request, timeout_s=5)`. Raises a leaf of the error tree."""
    try:
        return await method(request, timeout=timeout_s, metadata=_with_context(metadata, token))
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from error
    except asyncio.CancelledError:
        if _is_being_cancelled():
            raise
        raise _ended_by_peer() from None


@asynccontextmanager
async def open_stream(
    method: "grpc.aio.UnaryStreamMultiCallable[Request, Response]",
    request: Request,
    *,
    timeout_s: float | None = None,
    token: str | None = None,
    metadata: Metadata = (),
    idle_timeout_s: float | None = None,
) -> AsyncIterator[AsyncIterator[Response]]:
    """A server stream; leaving the block cancels the call.

    `timeout_s` bounds the whole stream, `idle_timeout_s` the wait for one message: past it the stream is over and
    DeadlineExceeded is raised. A timeout of your own around a single message would end the whole stream as well,
    because grpc.aio cancels the call with the read.
    """
    rpc = method(request, timeout=timeout_s, metadata=_with_context(metadata, token))
    incoming: Incoming[Response] = Incoming(rpc, idle_timeout_s)
    try:
        yield incoming
    finally:
        incoming.stop_watching()
        rpc.cancel()


class DuplexCall(Generic[Request, Response]):
    """A bidirectional stream, as an async context manager; iterate over what comes in.

    One task reads and one task writes. Leaving the block cancels the call; `close` before it ends it in order.
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
        self._rpc.cancel()

    def __aiter__(self) -> AsyncIterator[Response]:
        return self._incoming

    async def send(self, message: Request) -> None:
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await self._rpc.write(message)
        except TimeoutError:
            raise slow_reader(self._write_timeout_s) from None
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        except asyncio.InvalidStateError as error:
            raise _ended_by_peer() from error
        except asyncio.CancelledError:
            if _is_being_cancelled():
                raise
            raise _ended_by_peer() from None

    async def close(self) -> None:
        """Says that nothing more will be sent; what the peer still has to say can be read."""
        await self._rpc.done_writing()


class Incoming(Generic[Response]):
    """What a stream brings: an async iterator over one call's messages."""

    def __init__(self, rpc: Any, idle_timeout_s: float | None) -> None:
        self._rpc = rpc
        self._loop = asyncio.get_running_loop()
        self._idle_timeout_s = idle_timeout_s
        self._waiting_since: float | None = None
        self._gave_up = False
        self._timer: asyncio.TimerHandle | None = None
        if idle_timeout_s is not None:
            self._look_again_at(self._loop.time() + idle_timeout_s)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Response:
        self._waiting_since = self._loop.time()
        try:
            message = await self._rpc.read()
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        except asyncio.CancelledError:
            if _is_being_cancelled():
                raise
            raise self._why_it_ended() from None
        finally:
            self._waiting_since = None
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message  # type: ignore[no-any-return]  # the call is untyped here, for two kinds share this

    def stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look_again_at(self, when: float) -> None:
        self._timer = self._loop.call_at(when, self._look, when)

    def _look(self, due: float) -> None:
        """One timer per stream, not one per message: it looks how long the present read has been waiting."""
        assert self._idle_timeout_s is not None
        now = self._loop.time()
        if self._waiting_since is None or now - due > _OWN_STALL_S:
            self._look_again_at(now + self._idle_timeout_s)
        elif now < self._waiting_since + self._idle_timeout_s:
            self._look_again_at(self._waiting_since + self._idle_timeout_s)
        else:
            self._gave_up = True
            self._rpc.cancel()

    def _why_it_ended(self) -> LlorchError:
        if self._gave_up:
            return DeadlineExceeded(Reason.DEADLINE_PASSED, f"nothing came for {self._idle_timeout_s:g} s")
        return _ended_by_peer()


def _with_context(metadata: Metadata, token: str | None) -> tuple[tuple[str, str], ...]:
    """Adds the token, and the correlation id of the call that is being served, if any."""
    entries = tuple(metadata)
    if token is not None:
        entries += ((AUTHORIZATION, f"Bearer {token}"),)
    served = call_or_none()
    if served is not None and not any(key == CORRELATION_ID for key, _ in entries):
        entries += ((CORRELATION_ID, served.correlation_id),)
    return entries


def _is_being_cancelled() -> bool:
    """Tells a cancellation of this task from the one that grpc.aio raises when the *call* was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _ended_by_peer() -> Unavailable:
    return Unavailable(Reason.UPSTREAM_UNAVAILABLE, "the other side ended the call")
