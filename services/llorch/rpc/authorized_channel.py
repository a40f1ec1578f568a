"""A channel whose every call shows a token.

Not an interceptor: those of grpc.aio can lose a stream's cancellation. Not call credentials: they need TLS.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

from llorch.auth import AUTHORIZATION


class AuthorizedChannel(grpc.aio.Channel):
    def __init__(self, channel: grpc.aio.Channel, token: Callable[[], str | None]) -> None:
        """`token` is asked for at each call; None shows nothing."""
        self._channel = channel
        self._token = token

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._authorized(self._channel.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._authorized(self._channel.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return self._authorized(self._channel.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._authorized(self._channel.stream_stream(*args, **kwargs))

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()

    async def __aenter__(self) -> Self:
        await self._channel.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.__aexit__(kind, error, trace)

    def _authorized(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, metadata: Any = None, **kwargs: Any) -> Any:
            """A token that is given for this call alone has priority over the channel's."""
            entries = tuple(metadata or ())
            if not any(key == AUTHORIZATION for key, _ in entries) and (token := self._token()):
                entries = (*entries, (AUTHORIZATION, f"Bearer {token}"))
            return method(*args, metadata=entries, **kwargs)

        return call
