"""One HTTP request and its answer, over ASGI."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

from gatewayd.errors import Headers
from llorch.errors import DeadlineExceeded, InvalidArgument, Reason

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

CORRELATION_HEADER = b"x-correlation-id"

# A refusal is lost if the connection closes before the whole request was read: the client's kernel throws away
# what came before the reset. So the gateway reads the rest and drops it, for this long at most.
_LINGER_S = 2.0


class ClientGone(Exception):
    """The client closed the connection, so that no answer can reach it."""


class Exchange:
    """`headers` has lower-case names; where a header came twice, its values are joined with commas.

    `started` says that the answer has begun, `is_gone` that the client was seen leaving.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.raw_path: str = scope["raw_path"].decode("ascii", "backslashreplace")
        self.query: bytes = scope["query_string"]
        self.headers = _joined(scope["headers"])
        self.client: tuple[str, int] | None = scope["client"]
        self.correlation_id = ""
        self.started = False
        self.is_gone = False
        self._receive = receive
        self._send = send
        self._body_complete = False

    async def read_body(self, limit: int, timeout_s: float) -> bytes:
        """The whole body. What is larger than `limit` bytes is refused before it is read."""
        self._refuse_larger(int(self.headers.get("content-length") or 0), limit)
        body = bytearray()
        try:
            async with asyncio.timeout(timeout_s):
                while not self._body_complete:
                    body += await self._receive_part()
                    self._refuse_larger(len(body), limit)
        except TimeoutError:
            raise DeadlineExceeded(Reason.DEADLINE_PASSED, f"the body did not arrive within {timeout_s:g} s") from None
        return bytes(body)

    async def wait_gone(self) -> None:
        """Returns when the client has closed the connection."""
        try:
            while True:
                await self._receive_part()
        except ClientGone:
            return

    async def unless_gone(self, work: Coroutine[Any, Any, T]) -> T:
        """The work's result. Raises ClientGone, and cancels the work, when the client has gone."""
        working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(self.wait_gone())
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ClientGone
            return working.result()
        finally:
            working.cancel()
            leaving.cancel()
            await asyncio.wait({working, leaving})

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        named = [*headers, (CORRELATION_HEADER, self.correlation_id.encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": named})

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """Ends the answer. The HTTP server may wait here until the rest of the request was taken from it."""
        rest = asyncio.ensure_future(self.wait_gone())
        try:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            rest.cancel()

    async def answer(self, status: int, content_type: str, data: bytes, headers: Headers | None = None) -> None:
        """A whole answer at once."""
        described = [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(data)).encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        await self.start(status, [*described, *(headers or [])])
        await self.write(data)
        await self._drop_rest_of_body()
        await self.end()

    async def _receive_part(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.is_gone = True
            raise ClientGone
        self._body_complete = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    async def _drop_rest_of_body(self) -> None:
        try:
            async with asyncio.timeout(_LINGER_S):
                while not self._body_complete:
                    await self._receive_part()
        except (TimeoutError, ClientGone):
            return

    @staticmethod
    def _refuse_larger(size: int, limit: int) -> None:
        if size > limit:
            raise InvalidArgument(
                Reason.REQUEST_TOO_LARGE,
                f"the body is larger than {limit / 2**20:g} MiB, the most that this gateway takes",
            )


def _joined(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers
