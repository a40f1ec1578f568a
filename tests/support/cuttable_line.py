"""A TCP line that a test can cut, or hold so that nothing passes and neither side is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Line:
    address: str = ""
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    passes: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.passes.set()

    def cut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()

    def hold(self) -> None:
        """As if the cable were pulled: what is sent, ends of connections too, arrives after `release`."""
        self.passes.clear()

    def release(self) -> None:
        self.passes.set()


@asynccontextmanager
async def cuttable(target: str) -> AsyncIterator[Line]:
    line = Line()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line.writers.add(writer)
        try:
            await line.passes.wait()
            far_reader, far_writer = await asyncio.open_connection(*target.split(":"))
        except OSError:
            writer.transport.abort()
        else:
            line.writers.add(far_writer)
            await asyncio.gather(_copy(line, reader, far_writer), _copy(line, far_reader, writer))
            line.writers.discard(far_writer)
        finally:
            line.writers.discard(writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    line.address = f"{host}:{port}"
    try:
        yield line
    finally:
        server.close()
        line.release()
        line.cut()


async def _copy(line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            await line.passes.wait()
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return
    finally:
        await line.passes.wait()
        writer.close()
