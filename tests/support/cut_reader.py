"""A reader of a task's events whose connections are cut at any byte, and which comes back with its last cursor."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import h11

_AGAIN_AFTER_S = 0.02
_CONNECTS_WITHIN_S = 30.0
_SILENT_S = 30.0
_READ_BYTES = 4096


@dataclass
class CutReader:
    """`cut_after` is asked at each connection after how many bytes of the answer, its head among them, it is cut; None:
    not by the client. `shown` has every event that came whole; what each connection begins with, but once.
    """

    address: str
    body: bytes
    """Of POST /v2/generate."""
    cut_after: Callable[[], int | None]
    task_id: str = ""
    shown: list[dict[str, Any]] = field(default_factory=list)
    cursor: str = ""
    connections: int = 0

    @property
    def is_done(self) -> bool:
        return bool(self.shown) and self.shown[-1]["type"] in ("end", "error")

    async def read(self) -> None:
        """To the end of the task, over as many connections as it takes."""
        while not self.is_done:
            try:
                await self._connect()
            except OSError:
                await asyncio.sleep(_AGAIN_AFTER_S)  # its gateway is away, which is seen by asking it

    async def _connect(self) -> None:
        async with asyncio.timeout(_CONNECTS_WITHIN_S):
            reader, writer = await asyncio.open_connection(*self.address.split(":"))
        self.connections += 1
        try:
            await self._ask(reader, writer)
        finally:
            writer.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.CLIENT)
        for event in self._request():
            writer.write(http.send(event) or b"")
        left = self.cut_after()
        text = b""
        while left is None or left > 0:
            async with asyncio.timeout(_SILENT_S):
                data = await reader.read(_READ_BYTES if left is None else min(left, _READ_BYTES))
            left = None if left is None else left - len(data)
            try:
                http.receive_data(data)
                text = self._take(text + self._content(http))
            except h11.RemoteProtocolError:
                return  # it ended in the midst of an answer
            if not data or http.their_state is h11.DONE:
                return

    def _request(self) -> tuple[h11.Event, ...]:
        if not self.task_id:
            head = [("Host", "localhost"), ("Content-Length", str(len(self.body)))]
            request = h11.Request(method="POST", target="/v2/generate", headers=head)
            return request, h11.Data(data=self.body), h11.EndOfMessage()
        head = [("Host", "localhost"), *([("Last-Event-ID", self.cursor)] if self.cursor else [])]
        return h11.Request(method="GET", target=f"/v2/tasks/{self.task_id}/events", headers=head), h11.EndOfMessage()

    @staticmethod
    def _content(http: h11.Connection) -> bytes:
        content = b""
        while (event := http.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Response):
                assert event.status_code == 200, event
            if isinstance(event, h11.Data):
                content += event.data
            if isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                break
        return content

    def _take(self, text: bytes) -> bytes:
        """The rest, which is no whole frame yet."""
        *frames, rest = text.split(b"\n\n")
        for frame in frames:
            fields = dict(line.split(": ", 1) for line in frame.decode().split("\n") if not line.startswith(":"))
            if "data" in fields:
                self._show(json.loads(fields["data"]))
                self.cursor = fields.get("id", self.cursor)
        return rest

    def _show(self, event: dict[str, Any]) -> None:
        if event["type"] == "started":
            self.task_id = event["task_id"]
        comes_again = event["type"] in ("started", "placed")
        if not comes_again or all(one["type"] != event["type"] for one in self.shown):
            self.shown.append(event)
