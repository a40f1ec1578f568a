"""A browser's EventSource, as far as a stream of events needs one.

https://html.spec.whatwg.org/multipage/server-sent-events.html: any status but 200, or another type of content, ends it
for good; everything else lets it ask again after the reconnection time, with the id of the last event.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx


class GaveUp(Exception):
    """It never asks again."""


@dataclass
class EventSource:
    http: httpx.AsyncClient
    path: str
    retry_ms: int = 3000
    last_event_id: str = ""
    asked: int = 0
    comments: list[str] = field(default_factory=list)

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Data of every event, until the page is done with it."""
        while True:
            self.asked += 1
            try:
                async for shown in self._connection():
                    yield shown
            except httpx.TransportError:
                pass  # as a browser does where the network fails: it asks again
            await asyncio.sleep(self.retry_ms / 1000)

    async def _connection(self) -> AsyncIterator[dict[str, Any]]:
        headers = {"Accept": "text/event-stream"}
        if self.last_event_id:
            headers["Last-Event-ID"] = self.last_event_id
        async with self.http.stream("GET", self.path, headers=headers) as answer:
            if answer.status_code != 200 or not answer.headers["content-type"].startswith("text/event-stream"):
                raise GaveUp(f"{answer.status_code}: {(await answer.aread()).decode()}")
            event_id, data = self.last_event_id, ""
            async for line in answer.aiter_lines():
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if not line:
                    self.last_event_id = event_id
                    if data:
                        yield json.loads(data)
                    data = ""
                elif not name:
                    self.comments.append(value)
                elif name == "id":
                    event_id = value
                elif name == "data":
                    data += value
                elif name == "retry":
                    self.retry_ms = int(value)
