"""HTTP/1.1 (and 1.0) on one connection: one request after the other."""

import asyncio
from typing import TYPE_CHECKING

import h11

from gatewayd.http import limits
from gatewayd.http.body import Body
from gatewayd.http.date import date_header
from gatewayd.http.refusal import refusal
from gatewayd.http.request_head import read_head, too_large_a_head
from gatewayd.http.stream import Headers, RequestHead
from llorch.errors import InvalidArgument, LlorchError, Reason

if TYPE_CHECKING:
    from gatewayd.http.connection import Connection

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_PROBES_AFTER_S = (0.05, 0.1, 0.3)
"""A client that has closed answers the first of them with a reset, which the next one meets. One that only sends
nothing more has mostly got its answer before the first.
"""

_TLS = b"\x16\x03"
_OTHER_VERSION = 505
_BROKEN = "look at its first line, its headers, one Host among them, and how its body is framed"
_WHY = {
    431: f"its head is larger than {limits.HEAD_BYTES // 1024} KiB",
    501: "its Transfer-Encoding is another one than chunked",
    _OTHER_VERSION: "it is of another version; use HTTP/1.1, or HTTP/2 with its preface",
}


class Http1:
    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._machine = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.HEAD_BYTES)
        self._stream: Http1Stream | None = None
        self._is_last = False
        self._sends_no_more = False
        self._waits = False

    @property
    def slice_bytes(self) -> int:
        return limits.SLICE_BYTES

    def feed(self, data: bytes) -> None:
        if data.startswith(_TLS) and self._machine.their_state is h11.IDLE:
            self._refuse(_malformed("it is TLS, and this port speaks plain HTTP; use http://"), None)
            return
        self._machine.receive_data(data)
        if self._stream is not None and self._stream.counts_too_much(len(data)):
            self._stream.abort()
        else:
            self._advance()

    def feed_end(self) -> bool:
        """A client that half-closes waits for its answers; one that closed looks the same, until it is written to."""
        self._sends_no_more = True
        self._advance()
        stream = self._stream
        if stream is None:
            return self._end_after_last()
        if not stream.body.is_complete:
            stream.body.fail(_malformed("the body ended before its length or its last chunk; send it whole"))
        self._probe_soon(stream)
        return True

    def can_write(self) -> None:
        if self._stream is None:
            self._advance_soon()
        else:
            self._stream.taken.set()

    def collect(self) -> bytes:
        return b""

    @property
    def unsent(self) -> int:
        return 0

    def end_stalled(self, now: float) -> None:
        """The connection is the stream."""

    def close(self) -> None:
        self._is_last = True
        if self._stream is None:
            self._connection.close()

    def send(self, event: h11.Event) -> None:
        self._connection.write(self._machine.send(event) or b"")

    def send_raw(self, data: bytes) -> None:
        self._connection.write(data)

    def keep_place(self, task: "asyncio.Task[None] | None") -> None:
        self._connection.keep_place(task)

    def answer_begins(self, task: "asyncio.Task[None] | None") -> None:
        self._connection.answer_begins(task)

    def hold(self) -> None:
        self._connection.hold()

    def release(self) -> None:
        self._connection.release()
        self._advance_soon()

    def stalled_s(self, now: float) -> float:
        return 0.0

    def transport_stalled_s(self, now: float) -> float:
        return self._connection.transport_stalled_s(now)

    @property
    def is_writable(self) -> bool:
        return self._connection.is_writable

    def lose(self) -> None:
        self._stream = None

    def abort(self) -> None:
        self._connection.abort()

    def answered(self) -> None:
        """The answer is complete. The next request follows, if all of this one was read; else the rest is dropped."""
        self._stream = None
        machine = self._machine
        if machine.their_state is h11.DONE and machine.our_state is h11.DONE and not self._is_last:
            machine.start_next_cycle()
            self._advance_soon()
        elif machine.their_state in (h11.SEND_BODY, h11.ERROR) and not self._sends_no_more:
            self._connection.linger()
        else:
            self._connection.close()

    def _end_after_last(self) -> bool:
        """Of a client that sends nothing more and is answered: whether something is still to be sent."""
        waiting, _ = self._machine.trailing_data
        if waiting and not self._connection.is_over:
            self._refuse(_malformed("it ended within its head"), None)
            return True
        self._connection.close()
        return False

    def _probe_soon(self, stream: "Http1Stream") -> None:
        for seconds in _PROBES_AFTER_S:
            asyncio.get_running_loop().call_later(seconds, stream.probe)

    def _has_too_many_lines(self) -> bool:
        """Before they are read: that takes 11 ms for a head of 8,000 lines."""
        waiting, _ = self._machine.trailing_data
        end = waiting.find(b"\r\n\r\n")
        return waiting.count(b"\n", 0, end if end >= 0 else len(waiting)) > limits.HEADERS + 1

    def _advance_soon(self) -> None:
        if not self._waits:
            self._waits = True
            self._connection.soon(self._advance_later)

    def _advance_later(self) -> None:
        self._waits = False
        if self._connection.is_over:
            return
        self._advance()
        if self._stream is None and self._sends_no_more and not self._waits:
            self._end_after_last()
        elif self._stream is not None and self._sends_no_more:
            self._probe_soon(self._stream)

    def _advance(self) -> None:
        for _ in range(limits.EVENTS_PER_SLICE):
            if self._connection.is_over or (self._stream is None and not self._connection.is_writable):
                return
            if self._stream is not None and (self._stream.body.is_complete or self._stream.is_broken):
                self._bound_what_follows()
                return
            if self._stream is not None and self._stream.is_full:
                return
            if self._stream is None and self._has_too_many_lines():
                self._refuse(too_large_a_head(), None)
                return
            try:
                event = self._machine.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse(_malformed(_WHY.get(error.error_status_hint, _BROKEN)), error.error_status_hint)
                return
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return
            self._take(event)
        self._advance_soon()

    def _take(self, event: object) -> None:
        if isinstance(event, h11.Request):
            self._begin(event)
        elif isinstance(event, h11.Data) and self._stream is not None:
            self._stream.put(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage) and self._stream is not None:
            self._stream.body.complete()

    def _begin(self, event: h11.Request) -> None:
        pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers)
        method = event.method.decode("ascii", "replace")
        if not event.http_version.startswith(b"1."):
            self._refuse(_malformed(_WHY[_OTHER_VERSION]), _OTHER_VERSION, is_head=method == "HEAD")
            return
        try:
            head = read_head(method, event.target.decode("ascii", "replace"), pairs, self._connection.client)
        except InvalidArgument as error:
            self._refuse(error, None, is_head=method == "HEAD")
            return
        self._stream = Http1Stream(self, head, event.http_version)
        self._connection.serve(head, self._stream)

    def _refuse(self, error: LlorchError, status: int | None, *, is_head: bool = False) -> None:
        """Of a request that no door can be handed: nothing after it can be understood, so the connection ends."""
        if self._stream is not None:
            self._stream.breaks(error)
            return
        if self._machine.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self._connection.close()
            return
        code, headers, body = refusal(error, status)
        self.send(h11.Response(status_code=code, headers=[*headers, date_header(), (b"connection", b"close")]))
        if not is_head:
            self.send(h11.Data(data=body))
        self.send(h11.EndOfMessage())
        if self._sends_no_more:
            self._connection.close()
        else:
            self._connection.linger()

    def _bound_what_follows(self) -> None:
        waiting, _ = self._machine.trailing_data
        if len(waiting) > limits.BODY_AHEAD_BYTES:
            self._connection.abort()


class Http1Stream:
    def __init__(self, wire: Http1, head: RequestHead, version: bytes) -> None:
        self._wire = wire
        self._knows_continue = version != b"1.0"
        self._is_head = head.method == "HEAD"
        self._wants_continue = head.headers.get("expect", "").lower() == "100-continue" and self._knows_continue
        self._started = self._ended = self.is_broken = False
        self._probe = b""
        self._raw = self._read = 0
        self.body = Body()
        self.taken = asyncio.Event()
        self.is_full = False
        self.task: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        return self._ended

    async def receive(self) -> bytes | None:
        if self._wants_continue:
            self._wants_continue = False
            if not self._started and not self.body.size:
                self._wire.send(h11.InformationalResponse(status_code=100, headers=[]))
        received = await self.body.receive()
        self._make_room()
        return None if received is None else received[0]

    def ignore_body(self) -> None:
        self.body.drop()
        self._make_room()

    def keep_place(self) -> None:
        self._wire.keep_place(self.task)

    def breaks(self, error: LlorchError) -> None:
        """The rest of the body cannot be read."""
        self.is_broken = True
        if self._started:
            self.abort()
        else:
            self.body.fail(error)

    def start(self, status: int, headers: Headers) -> None:
        if self._ended:
            return
        self._started = True
        self._wire.answer_begins(self.task)
        last = [] if self.body.is_complete else [(b"connection", b"close")]
        self._wire.send(h11.Response(status_code=status, headers=[*headers, *last, date_header()]))

    def write(self, data: bytes) -> None:
        if data and not (self._ended or self._is_head):
            self._wire.send(h11.Data(data=data))

    def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._wire.send(h11.EndOfMessage())
        self.ignore_body()
        self._wire.answered()

    def abort(self) -> None:
        if not self._ended:
            self._ended = True
            self._wire.abort()

    @property
    def is_backed_up(self) -> bool:
        return not self._wire.is_writable

    async def wait_taken(self) -> None:
        while self.is_backed_up:
            self.taken.clear()
            await self.taken.wait()

    def stalled_s(self, now: float) -> float:
        return self._wire.transport_stalled_s(now)

    def probe_with(self, probe: bytes) -> None:
        self._probe = probe

    def probe(self) -> None:
        """Only of use where the client sends nothing more."""
        if self._ended:
            return
        if not self._started:
            if self._knows_continue:
                self._wire.send_raw(_CONTINUE)
        elif self._probe:
            self.write(self._probe)

    def put(self, data: bytes) -> None:
        self.body.put(data, len(data))
        self._read += len(data)
        if self.body.size > limits.BODY_AHEAD_BYTES and not self.is_full:
            self.is_full = True
            self._wire.hold()

    def counts_too_much(self, raw: int) -> bool:
        """Whether the body is cut into pieces so small that reading them is the work."""
        self._raw += raw
        return not self.body.is_complete and self._raw > 2 * self._read + limits.FRAMING_BYTES + limits.BODY_AHEAD_BYTES

    def _make_room(self) -> None:
        if self.is_full and self.body.size <= limits.BODY_AHEAD_BYTES:
            self.is_full = False
            self._wire.release()


def _malformed(why: str) -> InvalidArgument:
    return InvalidArgument(Reason.MALFORMED_REQUEST, f"this is no HTTP request that the gateway can read: {why}")
