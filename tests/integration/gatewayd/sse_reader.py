"""Server-sent events read over a bare socket, so that a test sees every byte and may leave at any moment."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Event:
    type: str
    id: str
    data: dict[str, Any]
    retry_ms: int | None = None


@dataclass
class SseReader:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    comments: list[str] = field(default_factory=list)
    _text: str = ""

    @classmethod
    async def open(
        cls, address: str, target: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> "SseReader":
        self = cls(*await asyncio.open_connection(*address.split(":")))
        method = "POST" if body else "GET"
        named = {"Host": "localhost", "Content-Length": str(len(body)), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        self.writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)
        async with asyncio.timeout(10):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        self.status = int(lines[0].split()[1])
        self.headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
        return self

    async def events(self, count: int | None = None) -> list[Event]:
        """The next `count` events, or all up to the end of the stream."""
        found: list[Event] = []
        async with asyncio.timeout(10):
            while count is None or len(found) < count:
                frame = await self._frame()
                if frame is None:
                    break
                if frame.startswith(":"):
                    self.comments.append(frame)
                else:
                    found.append(_parse(frame))
        return found

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()

    async def _frame(self) -> str | None:
        while "\n\n" not in self._text:
            chunk = await self._chunk()
            if not chunk:
                return None
            self._text += chunk
        frame, _, self._text = self._text.partition("\n\n")
        return frame

    async def _chunk(self) -> str:
        size = int(await self.reader.readline() or b"0", 16)
        return (await self.reader.readexactly(size + 2))[:-2].decode()


def _parse(frame: str) -> Event:
    fields = dict(line.split(": ", 1) for line in frame.split("\n"))
    retry_ms = int(fields["retry"]) if "retry" in fields else None
    return Event(fields["event"], fields.get("id", ""), json.loads(fields["data"]), retry_ms)
