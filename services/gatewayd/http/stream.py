"""One request and the way back to its client, whatever version of HTTP the client speaks."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class RequestHead:
    """`raw_path` and `query` are as they came. `headers` has lower-case names; the values of one that came twice are
    joined by commas. `client` is the address and the port of the connection's other end.
    """

    method: str
    raw_path: str
    query: bytes
    headers: dict[str, str]
    client: tuple[str, int] | None


class Stream(Protocol):
    """The task that serves the request is cancelled when the client has left; what it writes then goes nowhere.

    Only `receive` and `wait_taken` wait: what is written leaves in one piece at the end of the loop's turn.
    """

    task: "asyncio.Task[None] | None"
    """What serves the request, once it has begun."""

    @property
    def is_over(self) -> bool:
        """The client has left, or the answer is complete."""
        ...

    async def receive(self) -> bytes | None:
        """The next part of the body; None once there is no more."""
        ...

    def ignore_body(self) -> None:
        """Nothing of the body is wanted."""
        ...

    def keep_place(self) -> None:
        """The request was let in: its connection does not leave for a newcomer before it is answered."""
        ...

    def start(self, status: int, headers: Headers) -> None: ...

    def write(self, data: bytes) -> None: ...

    def end(self) -> None:
        """The answer is complete. Of the request's body, nothing more is wanted."""
        ...

    def abort(self) -> None:
        """Ends the stream where it stands; the client can tell that from its end."""
        ...

    @property
    def is_backed_up(self) -> bool:
        """So much waits for the client that no more should be made."""
        ...

    async def wait_taken(self) -> None:
        """Returns when the stream is not backed up any more. The server bounds how long that may take."""
        ...

    def stalled_s(self, now: float) -> float:
        """For how long the client has taken nothing of what is ready for it; 0 if nothing is."""
        ...

    def probe_with(self, probe: bytes) -> None:
        """What may be written into the answer at any time to find out whether the client is still there."""
        ...


Serve = Callable[[RequestHead, Stream], Awaitable[None]]
