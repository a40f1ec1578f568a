"""One connection of a client: its bytes, its times, and the tasks that serve its requests."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from gatewayd.http import limits
from gatewayd.http.http1 import Http1
from gatewayd.http.http2 import PREFACE, Http2
from gatewayd.http.limit_log import LimitLog
from gatewayd.http.reads import Reads
from gatewayd.http.stream import RequestHead, Serve, Stream
from gatewayd.http.turns import Turns
from llorch.logs import get_logger

_READS = frozenset({"GET", "HEAD"})
_log = get_logger("http")


class Wire(Protocol):
    """A version of HTTP on one connection."""

    def feed(self, data: bytes) -> None: ...

    @property
    def slice_bytes(self) -> int:
        """What is fed at once."""
        ...

    def feed_end(self) -> bool:
        """The client sends nothing more. Whether it may still read."""
        ...

    def can_write(self) -> None:
        """The connection takes data again."""
        ...

    def collect(self) -> bytes:
        """What is ready to be sent and was not handed to the connection itself."""
        ...

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client in the wire."""
        ...

    def stalled_s(self, now: float) -> float:
        """As that of the connection, for what waits in the wire."""
        ...

    def end_stalled(self, now: float) -> None:
        """Ends the streams whose clients have taken nothing for too long."""
        ...

    def close(self) -> None:
        """Takes no further request."""
        ...

    def lose(self) -> None:
        """The connection is lost, and with it the streams."""
        ...


@dataclass(frozen=True, slots=True)
class Shared:
    """What the connections of one server have together.

    `buffer` is what all of them read into: what came is copied from it at once.
    """

    serve: Serve
    on_lost: Callable[["Connection"], None]
    limit_log: LimitLog
    turns: Turns
    reads: Reads
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(limits.READ_BYTES)))


class Connection(asyncio.BufferedProtocol):
    """`address` is the other end's, without the port."""

    def __init__(self, address: str, shared: Shared) -> None:
        self.address = address
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._wire: Wire | None = None
        self._first = b""
        self._unread = bytearray()
        self._holds_unread = self._half_closed = self._asks = False
        self._out: list[bytes] = []
        self._flushing = False
        self._closing = False
        self._lost = False
        self._holds = 0
        self._taken = self._written = 0
        self._stalled_since: float | None = None
        self._idle_since: float | None = self._loop.time()
        self._ends_at: float | None = None
        self._to_serve: deque[tuple[RequestHead, Stream]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._allowed: set[asyncio.Task[None]] = set()
        self._reads: set[asyncio.Task[None]] = set()
        """Of which the answers have not begun."""
        self._counted: dict[asyncio.Task[None], asyncio.TimerHandle] = {}
        """Those that count among the reads of all connections, with what ends that."""
        self._unwanted = False
        self.client: tuple[str, int] | None = None
        self.is_writable = True
        self.lost: asyncio.Future[None] = self._loop.create_future()

    # What the event loop calls.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.client = (peer[0], peer[1]) if peer else None
        transport.set_write_buffer_limits(limits.BACKED_UP_BYTES)
        if self._unwanted:
            transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._shared.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.is_over:
            return
        self._unread += self._shared.buffer[:nbytes]
        if not self._holds_unread and len(self._unread) >= limits.READ_BYTES:
            self._holds_unread = True
            self.hold()
        self._ask()

    def eof_received(self) -> bool:
        """A client that sends nothing more may still read; one that closed looks the same, until it is written to."""
        if self._unread:
            self._half_closed = True
            return True
        if self._wire is None or self._ends_at is not None:
            return False
        return self._wire.feed_end()

    def pause_writing(self) -> None:
        """What the client asks for while it takes nothing would only wait for it here."""
        self.is_writable = False
        self.hold()

    def resume_writing(self) -> None:
        self.is_writable = True
        self.release()
        if self._wire is not None:
            self._wire.can_write()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._out.clear()
        self._to_serve.clear()
        self._unread.clear()
        self._shared.reads.forget(self)
        for task in self._tasks:
            task.cancel()
        if self._wire is not None:
            self._wire.lose()
            self._wire = None
        self._shared.on_lost(self)
        if not self.lost.done():
            self.lost.set_result(None)

    # What the wire calls.

    def serve(self, head: RequestHead, stream: Stream) -> None:
        """As soon as it is its turn."""
        self._idle_since = None
        self._to_serve.append((head, stream))
        self._ask()

    def write(self, data: bytes) -> None:
        if data and not self._lost:
            self._out.append(data)
            self.flush_soon()

    def soon(self, step: Callable[[], None]) -> None:
        """In the next turn of the loop."""
        self._loop.call_soon(self._guard, step)

    def flush_soon(self) -> None:
        """Everything that is written in this turn of the loop leaves in one piece."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def keep_place(self, task: "asyncio.Task[None] | None") -> None:
        """The request that this task serves was let in; the connection does not leave for a newcomer before its end."""
        if task in self._tasks:
            self._allowed.add(task)

    def answer_begins(self, task: "asyncio.Task[None] | None") -> None:
        """Of the request that this task serves; another one may begin."""
        if task in self._reads:
            self._reads.discard(task)
            self._count_no_more(task)

    def limit_reached(self, limit: str) -> None:
        self._shared.limit_log.reached(limit, self.address)

    def hold(self) -> None:
        """Nothing more is read until `release` was called as often."""
        self._holds += 1
        if self._holds == 1 and not self._transport.is_closing():
            self._transport.pause_reading()

    def release(self) -> None:
        self._holds -= 1
        if self._holds == 0 and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Once everything was sent. A client that does not take it is not waited for longer than any other."""
        if not self._closing:
            self._closing = True
            self.flush_soon()

    def linger(self) -> None:
        """Sends what is ready, says that this is the end, and drops what still comes for a while."""
        self._ends_at = self._loop.time() + limits.LINGER_S
        self._flush()
        if not self._lost and self._transport.can_write_eof():
            self._transport.write_eof()

    def abort(self) -> None:
        """Also before it is connected: then as soon as it is."""
        self._unwanted = True
        if self._transport is not None:
            self._transport.abort()

    # What the server calls.

    @property
    def is_serving(self) -> bool:
        """A request that was let in."""
        return bool(self._allowed)

    @property
    def has_request(self) -> bool:
        """One that is being answered, or is still to be read or let in."""
        return bool(self._tasks or self._to_serve or self._asks)

    @property
    def is_over(self) -> bool:
        """Nothing more is read of it."""
        return self._lost or self._closing or self._ends_at is not None

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client."""
        return self._unsent_here + (0 if self._wire is None else self._wire.unsent)

    def stalled_s(self, now: float) -> float:
        """For how long the client has taken nothing of what is ready for it; 0 if nothing is."""
        return max(self.transport_stalled_s(now), 0.0 if self._wire is None else self._wire.stalled_s(now))

    def transport_stalled_s(self, now: float) -> float:
        unsent = self._unsent_here
        if not unsent:
            self._stalled_since = None
            return 0.0
        taken = self._written - unsent
        if self._stalled_since is None or taken != self._taken:
            self._taken, self._stalled_since = taken, now
        return now - self._stalled_since

    def look(self, now: float) -> None:
        """Ends what took too long."""
        if self.transport_stalled_s(now) >= limits.STALLED_S:
            self.limit_reached("a client that takes nothing")
            self.abort()
        elif self._ends_at is not None and now >= self._ends_at:
            self.abort()
        elif self._idle_since is not None and now - self._idle_since >= limits.IDLE_S and not self.unsent:
            self.finish()
        elif self._wire is not None:
            self._wire.end_stalled(now)

    def finish(self) -> None:
        """Takes no further request, and closes once those that are being served are answered."""
        if self._wire is None:
            self.close()
        else:
            self._wire.close()

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.abort()

    @property
    def _unsent_here(self) -> int:
        return 0 if self._lost or self._transport is None else self._transport.get_write_buffer_size()

    def take_step(self) -> bool:
        """Begins one request, or reads a slice of what came."""
        if self.is_over:
            self._to_serve.clear()
            self._drop_unread()
        elif self._may_begin:
            self._begin_one()
        else:
            self._read_slice()
        self._asks = bool(self._unread) or self._may_begin
        self._wait_to_read()
        self._note_idle()
        return self._asks

    def begin_next(self) -> None:
        """The request that waited until it may read."""
        if not self.is_over:
            self._begin_one()
            self._look_for_next()
            self._note_idle()

    @property
    def counted_reads(self) -> int:
        return len(self._counted)

    @property
    def all_reads(self) -> int:
        return len(self._reads)

    def _look_for_next(self) -> None:
        if self._may_begin:
            self._ask()
        self._wait_to_read()

    def _wait_to_read(self) -> None:
        if self._to_serve and not self._may_begin:
            self._shared.reads.wait(self)

    def _ask(self) -> None:
        if not self._asks:
            self._asks = True
            self._shared.turns.ask(self)

    @property
    def _may_begin(self) -> bool:
        return bool(self._to_serve) and (
            self._to_serve[0][0].method not in _READS or self._shared.reads.may_begin(self)
        )

    def _begin_one(self) -> None:
        while self._may_begin:
            head, stream = self._to_serve.popleft()
            if not stream.is_over:
                name = f"{head.method} {head.raw_path[:80]}"
                task = stream.task = self._loop.create_task(self._run(head, stream), name=name)
                self._tasks.add(task)
                self._shared.turns.begin()
                if head.method in _READS:
                    self._reads.add(task)
                    self._counted[task] = self._loop.call_later(limits.READ_COUNTS_S, self._count_no_more, task)
                    self._shared.reads.begin()
                task.add_done_callback(self._served)
                return

    def _count_no_more(self, task: "asyncio.Task[None]") -> None:
        counting = self._counted.pop(task, None)
        if counting is not None:
            counting.cancel()
            self._shared.reads.end()
        self._look_for_next()

    def _read_slice(self) -> None:
        # Before the wire is known, it may be either.
        size = limits.HTTP2_SLICE_BYTES if self._wire is None else self._wire.slice_bytes
        data = bytes(self._unread[:size])
        del self._unread[: len(data)]
        if data:
            self._guard(partial(self._feed, data))
        if not self._unread:
            self._drop_unread()

    def _drop_unread(self) -> None:
        """The last of it was read, or is not wanted."""
        self._unread.clear()
        if self._holds_unread:
            self._holds_unread = False
            self.release()
        if self._half_closed and not self._lost:
            self._half_closed = False
            self._guard(self._end_reading)

    def _end_reading(self) -> None:
        if self._wire is None or self._ends_at is not None or not self._wire.feed_end():
            self.close()

    def _guard(self, step: Callable[[], None]) -> None:
        """What one client sends must not end more than its connection."""
        try:
            step()
        except Exception as error:  # noqa: BLE001  # whatever it is
            _log.error("connection_failed", exc_info=error)
            self.abort()

    def _feed(self, data: bytes) -> None:
        if self._wire is None:
            data = self._first = self._first + data
            if PREFACE.startswith(data[: len(PREFACE)]) and len(data) < len(PREFACE):
                return
            self._first = b""
            self._wire = Http2(self) if data.startswith(PREFACE) else Http1(self)
        self._wire.feed(data)

    def _flush(self) -> None:
        self._flushing = False
        if self._lost:
            return
        if self._wire is not None:
            self._out.insert(0, self._wire.collect())
        data = b"".join(self._out)
        self._out.clear()
        if data:
            self._written += len(data)
            self._transport.write(data)
        if self._closing:
            self._transport.close()

    async def _run(self, head: RequestHead, stream: Stream) -> None:
        try:
            await self._shared.serve(head, stream)
        except Exception as error:  # noqa: BLE001  # the failure of one request must not reach others
            _log.error("request_not_answered", exc_info=error)
        finally:
            stream.abort()
            stream.task = None

    def _served(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._allowed.discard(task)
        self.answer_begins(task)
        self._note_idle()

    def _note_idle(self) -> None:
        if not (self._tasks or self._to_serve) and self._idle_since is None:
            self._idle_since = self._loop.time()
