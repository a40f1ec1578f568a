"""HTTP/2 on one connection: many requests at once."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from gatewayd.http import limits
from gatewayd.http.body import Body
from gatewayd.http.date import date_header
from gatewayd.http.frame_budget import FrameBudget
from gatewayd.http.refusal import refusal
from gatewayd.http.request_head import read_head
from gatewayd.http.stream import Headers
from llorch.errors import InvalidArgument
from llorch.logs import get_logger

if TYPE_CHECKING:
    from gatewayd.http.connection import Connection

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
_log = get_logger("http")


class Http2:
    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._machine = H2Connection(H2Configuration(client_side=False))
        self._machine.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: limits.STREAMS,
                SettingCodes.MAX_HEADER_LIST_SIZE: limits.HEAD_BYTES,
            },
        )
        self._machine.initiate_connection()
        self._budget = FrameBudget(
            limits.FRAMES,
            limits.FRAMES_PER_S,
            self._loop.time(),
            skip=len(PREFACE),
            most_head_bytes=limits.HEAD_BYTES,
        )
        self._streams: dict[int, Http2Stream] = {}
        self._newest = 0
        self._is_last = False

    @property
    def slice_bytes(self) -> int:
        return max(limits.HTTP2_SLICE_BYTES, min(limits.SLICE_BYTES, self._budget.left_of_frame))

    def feed(self, data: bytes) -> None:
        taken = self._budget.take(data, self._loop.time())
        if taken is None:
            self._connection.limit_reached("HTTP/2 frames that ask for nothing")
            self._give_up(ErrorCodes.ENHANCE_YOUR_CALM)
            return
        try:
            events = self._machine.receive_data(taken)
        except ProtocolError as error:
            _log.debug("broken_http2", why=str(error)[:200])
            self._give_up(None)
            return
        for event in events:
            self._take(event)
        encoder = self._machine.encoder
        encoder.header_table_size = min(encoder.header_table_size, limits.HEADER_TABLE_BYTES)
        self._connection.flush_soon()
        if self._budget.goes_away or self._newest > 2 * limits.REQUESTS:
            self.close()

    def lose(self) -> None:
        self._streams.clear()

    def feed_end(self) -> bool:
        return False

    def can_write(self) -> None:
        self._pump_all()

    def collect(self) -> bytes:
        return self._machine.data_to_send()

    @property
    def unsent(self) -> int:
        return sum(stream.unsent for stream in self._streams.values())

    def end_stalled(self, now: float) -> None:
        for stream in list(self._streams.values()):
            if stream.stalled_s(now) >= limits.STALLED_S:
                self._connection.limit_reached("a client that takes nothing")
                stream.abort()

    def close(self) -> None:
        if not self._is_last:
            self._is_last = True
            # By the machine's own, no answer that is under way could be sent any more.
            self._connection.write(GoAwayFrame(last_stream_id=self._newest).serialize())
        self._close_if_done()

    @property
    def is_writable(self) -> bool:
        return self._connection.is_writable

    def stalled_s(self, now: float) -> float:
        return max((stream.blocked_s(now) for stream in self._streams.values()), default=0.0)

    def transport_stalled_s(self, now: float) -> float:
        return self._connection.transport_stalled_s(now)

    def now(self) -> float:
        return self._loop.time()

    def keep_place(self, task: "asyncio.Task[None] | None") -> None:
        self._connection.keep_place(task)

    def answer_begins(self, task: "asyncio.Task[None] | None") -> None:
        self._connection.answer_begins(task)

    def send_headers(self, stream: int, headers: Headers) -> None:
        self._try(self._machine.send_headers, stream, headers)
        self._connection.flush_soon()

    def room(self, stream: int) -> int:
        """Bytes that may be sent on it in one frame now."""
        try:
            return min(self._machine.local_flow_control_window(stream), self._machine.max_outbound_frame_size)
        except ProtocolError:
            return 0

    def send_data(self, stream: int, data: bytes, *, last: bool) -> None:
        self._try(partial(self._machine.send_data, stream, data, end_stream=last))
        self._budget.sent_data()
        self._connection.flush_soon()

    def was_read(self, stream: int, weight: int) -> None:
        """The client may send as much again."""
        if weight:
            self._try(self._machine.acknowledge_received_data, weight, stream)
            self._connection.flush_soon()

    def forget(self, stream: int, code: ErrorCodes | None) -> None:
        """It is over; with a code, before its end."""
        if self._streams.pop(stream, None) is None:
            return
        if code is not None:
            self._try(self._machine.reset_stream, stream, code)
            self._connection.flush_soon()
        self._close_if_done()

    def _try(self, step: Callable[..., None], *values: Any) -> None:
        """A step that is too late, since the client has ended the stream or the connection, is none."""
        try:
            step(*values)
        except ProtocolError as error:
            _log.debug("too_late_for_http2", why=str(error)[:200])

    def _take(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._begin(event)
            case DataReceived():
                self._take_data(event)
            case StreamEnded():
                self._end_body(event)
            case StreamReset():
                self._reset(event)
            case WindowUpdated():
                self._open_window(event)
            case RemoteSettingsChanged():
                self._pump_all()

    def _begin(self, event: RequestReceived) -> None:
        stream_id = event.stream_id
        if self._is_last:
            self._try(self._machine.reset_stream, stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self._newest = stream_id
        stream = self._streams[stream_id] = Http2Stream(self, stream_id)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers or ()]
        pseudo = {name: value for name, value in headers if name.startswith(":")}
        plain = [header for header in headers if not header[0].startswith(":")]
        if ":authority" in pseudo:
            plain.append(("host", pseudo[":authority"]))
        method = pseudo.get(":method", "")
        stream.is_head = method == "HEAD"
        try:
            head = read_head(method, pseudo.get(":path", "*"), plain, self._connection.client)
        except InvalidArgument as error:
            status, described, body = refusal(error, None)
            stream.start(status, described)
            stream.write(body)
            stream.end()
            return
        self._connection.serve(head, stream)

    def _take_data(self, event: DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        weight = event.flow_controlled_length or 0
        if stream is None:
            self.was_read(event.stream_id, weight)
        else:
            self.was_read(event.stream_id, stream.body.put(event.data or b"", weight))

    def _end_body(self, event: StreamEnded) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.body.complete()

    def _reset(self, event: StreamReset) -> None:
        stream = self._streams.pop(event.stream_id, None)
        if stream is not None:
            stream.lose()
            self._close_if_done()

    def _open_window(self, event: WindowUpdated) -> None:
        if event.stream_id == 0:
            self._pump_all()
        elif stream := self._streams.get(event.stream_id):
            stream.pump()

    def _pump_all(self) -> None:
        for stream in list(self._streams.values()):
            stream.pump()

    def _give_up(self, code: ErrorCodes | None) -> None:
        if code is not None:
            self._try(self._machine.close_connection, code)
        for stream in list(self._streams.values()):
            stream.lose()
        self._streams.clear()
        self._connection.linger()

    def _close_if_done(self) -> None:
        if self._is_last and not self._streams:
            self._connection.close()


class Http2Stream:
    def __init__(self, wire: Http2, number: int) -> None:
        self._wire = wire
        self._number = number
        self._unsent = bytearray()
        self._ended = self.is_over = False
        self._blocked_since: float | None = None
        self._taken = asyncio.Event()
        self.body = Body()
        self.task: asyncio.Task[None] | None = None
        self.is_head = False

    async def receive(self) -> bytes | None:
        received = await self.body.receive()
        if received is None:
            return None
        data, weight = received
        self._wire.was_read(self._number, weight)
        return data

    def ignore_body(self) -> None:
        self._wire.was_read(self._number, self.body.drop())

    def keep_place(self) -> None:
        self._wire.keep_place(self.task)

    def start(self, status: int, headers: Headers) -> None:
        if not self._ended:
            self._wire.answer_begins(self.task)
            plain = [(name, value) for name, value in headers if name not in _HOP_BY_HOP]
            self._wire.send_headers(self._number, [(b":status", str(status).encode()), *plain, date_header()])

    def write(self, data: bytes) -> None:
        if not (self._ended or self.is_head):
            self._unsent += data
            self.pump()

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self.ignore_body()
            self.pump()

    def abort(self) -> None:
        """An answer that is complete still goes out to a client that takes it."""
        if self._ended and self.stalled_s(self._wire.now()) < limits.STALLED_S:
            return
        self._ended = True
        if not self.is_over:
            self._over(ErrorCodes.CANCEL)

    def lose(self) -> None:
        """The client wants no more of it."""
        self._ended = self.is_over = True
        self._unsent.clear()
        self.ignore_body()
        if self.task is not None:
            self.task.cancel()

    @property
    def unsent(self) -> int:
        return len(self._unsent)

    @property
    def is_backed_up(self) -> bool:
        return len(self._unsent) > limits.BACKED_UP_BYTES

    async def wait_taken(self) -> None:
        while self.is_backed_up:
            self._taken.clear()
            await self._taken.wait()

    def stalled_s(self, now: float) -> float:
        return max(self.blocked_s(now), self._wire.transport_stalled_s(now)) if self._unsent else 0.0

    def blocked_s(self, now: float) -> float:
        return 0.0 if self._blocked_since is None else now - self._blocked_since

    def probe_with(self, probe: bytes) -> None:
        """A client that leaves resets its stream, or its connection ends."""

    def pump(self) -> None:
        """Sends as much as the client and the connection take."""
        if self.is_over:
            return
        sent = False
        while self._unsent and self._wire.is_writable and (room := self._wire.room(self._number)) > 0:
            piece = bytes(self._unsent[:room])
            del self._unsent[:room]
            sent = True
            last = self._ended and not self._unsent
            self._wire.send_data(self._number, piece, last=last)
            if last:
                self._finish()
                return
        if self._ended and not self._unsent:
            self._wire.send_data(self._number, b"", last=True)
            self._finish()
            return
        if not self._unsent:
            self._blocked_since = None
        elif sent or self._blocked_since is None:
            self._blocked_since = self._wire.now()
        if not self.is_backed_up:
            self._taken.set()

    def _finish(self) -> None:
        self._over(None if self.body.is_complete else ErrorCodes.NO_ERROR)

    def _over(self, code: ErrorCodes | None) -> None:
        self.is_over = True
        self._unsent.clear()
        self._blocked_since = None
        self.ignore_body()
        self._wire.forget(self._number, code)
        if code is ErrorCodes.CANCEL and self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()
