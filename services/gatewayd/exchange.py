"""One HTTP request and its answer, as the doors see them."""

import asyncio

from gatewayd.errors import Headers
from gatewayd.http.stream import RequestHead, Stream
from llorch.errors import DeadlineExceeded, InvalidArgument, Reason

CORRELATION_HEADER = b"x-correlation-id"


class Exchange:
    """`started` says that the answer has begun. What serves the request is cancelled when the client leaves."""

    def __init__(self, head: RequestHead, stream: Stream) -> None:
        self.method = head.method
        self.raw_path = head.raw_path
        self.query = head.query
        self.headers = head.headers
        self.client = head.client
        self.correlation_id = ""
        self.started = False
        self._stream = stream

    async def read_body(self, limit: int, timeout_s: float) -> bytes:
        """The whole body. What is larger than `limit` bytes is refused before it is read."""
        self._refuse_larger(int(self.headers.get("content-length", "0")), limit)
        body = bytearray()
        try:
            async with asyncio.timeout(timeout_s):
                while (part := await self._stream.receive()) is not None:
                    body += part
                    self._refuse_larger(len(body), limit)
        except TimeoutError:
            raise DeadlineExceeded(Reason.DEADLINE_PASSED, f"the body did not arrive within {timeout_s:g} s") from None
        return bytes(body)

    def keep_place(self) -> None:
        """The request was let in: its connection does not leave for a newcomer before it is answered."""
        self._stream.keep_place()

    def ignore_body(self) -> None:
        """Nothing of it is wanted; a client that sends one all the same is not held up."""
        self._stream.ignore_body()

    def start(self, status: int, headers: Headers) -> None:
        self.started = True
        self._stream.start(status, [*headers, (CORRELATION_HEADER, self.correlation_id.encode())])

    def write(self, data: bytes) -> None:
        self._stream.write(data)

    async def wait_taken(self) -> None:
        """Returns at once, unless so much waits for the client that no more should be made."""
        if self._stream.is_backed_up:
            await self._stream.wait_taken()

    @property
    def is_backed_up(self) -> bool:
        return self._stream.is_backed_up

    def end(self) -> None:
        self._stream.end()

    def abort(self) -> None:
        self._stream.abort()

    def answer(self, status: int, content_type: str, data: bytes, headers: Headers | None = None) -> None:
        """A whole answer at once."""
        described = [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(data)).encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        self.start(status, [*described, *(headers or [])])
        self.write(data)
        self.end()

    def probe_with(self, data: bytes) -> None:
        """What may be written at any time to find out whether the client is still there."""
        self._stream.probe_with(data)

    def stalled_s(self, now: float) -> float:
        """For how long the client has taken nothing of what is ready for it."""
        return self._stream.stalled_s(now)

    @staticmethod
    def _refuse_larger(size: int, limit: int) -> None:
        if size > limit:
            raise InvalidArgument(
                Reason.REQUEST_TOO_LARGE,
                f"the body is larger than {limit / 2**20:g} MiB, the most that this gateway takes (max_body_mib)",
            )
