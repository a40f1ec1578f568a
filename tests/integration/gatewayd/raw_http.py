"""A client that writes bytes, for requests that no library would send."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes, Settings

WITHIN_S = 10.0
DEFAULT_WINDOW = 65_535
_FRAME = 16_384
_FRAME_HEAD = 9
_GOAWAY = 7


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answer_to(address: str, raw: bytes, *, half_close: bool = False) -> tuple[int, bytes]:
    """Status and body of the first final answer, which has a Content-Length; 0 where the connection ends without."""
    async with connected(address) as (reader, writer), asyncio.timeout(WITHIN_S):
        writer.write(raw)
        if half_close:
            writer.write_eof()
        return await read_answer(reader)


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    while True:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        except asyncio.IncompleteReadError:
            return 0, b""
        status = int(head.split()[1])
        if status >= 200:
            break
    length = next((int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length:")), 0)
    return status, await reader.readexactly(length)


class RawHttp2:
    """`on_event` of the library's events; windows open by themselves unless `takes` is False."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, window: int = DEFAULT_WINDOW
    ) -> None:
        self._reader = reader
        self._writer = writer
        self.machine = H2Connection(H2Configuration(client_side=True))
        self.machine.local_settings = Settings(
            client=True, initial_values={SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.ENABLE_PUSH: 0}
        )
        self.machine.initiate_connection()
        self.takes = True
        self.status: dict[int, int] = {}
        self.body: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.reset: dict[int, int] = {}
        self.is_closed = False
        self.goes_away = False
        self._received = b""
        self.flush()

    def ask(
        self, path: str, *, method: str = "GET", body: bytes | None = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> int:
        stream = self.machine.get_next_available_stream_id()
        pseudo = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "localhost")]
        self.machine.send_headers(stream, [*pseudo, *headers], end_stream=body is None)
        if body is not None:
            for begin in range(0, len(body), _FRAME):
                self.machine.send_data(stream, body[begin : begin + _FRAME])
            self.machine.end_stream(stream)
        self.flush()
        return stream

    def flush(self) -> None:
        self._writer.write(self.machine.data_to_send())

    async def read_until_ended(self, *streams: int) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not (self.is_closed or all(stream in self.ended or stream in self.reset for stream in streams)):
                await self.read_some()

    async def read_some(self) -> None:
        data = await self._reader.read(65536)
        if not data:
            self.is_closed = True
            return
        for event in self.machine.receive_data(self._frames(data)):
            self._note(event)
        self.flush()

    def _frames(self, data: bytes) -> bytes:
        """All frames that are whole; without a GOAWAY, after which the library reads no answer any more."""
        self._received += data
        kept = b""
        while len(self._received) >= _FRAME_HEAD:
            size = _FRAME_HEAD + int.from_bytes(self._received[:3])
            if len(self._received) < size:
                break
            if self._received[3] == _GOAWAY:
                self.goes_away = True
            else:
                kept += self._received[:size]
            self._received = self._received[size:]
        return kept

    def _note(self, event: Event) -> None:
        if isinstance(event, ResponseReceived):
            self.status[event.stream_id] = int(dict(event.headers)[b":status"])
        elif isinstance(event, DataReceived):
            self.body.setdefault(event.stream_id, bytearray()).extend(event.data)
            if self.takes:
                self.machine.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self.ended.add(event.stream_id)
        elif isinstance(event, StreamReset):
            self.reset[event.stream_id] = int(event.error_code)


@asynccontextmanager
async def http2(address: str, *, window: int = DEFAULT_WINDOW) -> AsyncIterator[RawHttp2]:
    async with connected(address) as (reader, writer):
        yield RawHttp2(reader, writer, window=window)
