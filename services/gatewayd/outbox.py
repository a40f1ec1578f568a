"""Frames between the task that reads the orchestrator's stream and the task that writes to the client."""

import asyncio

from llorch.errors import LlorchError

# Past this the reader waits, and with it, through flow control, the orchestrator.
_FULL_BYTES = 256 * 1024


class Outbox:
    """Everything that is ready leaves in one piece: a client that lags costs one write, not one per event."""

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._size = 0
        self._ended = False
        self._error: LlorchError | None = None
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()

    async def put(self, frame: bytes) -> None:
        """Waits while the outbox is full."""
        if self._ended:
            return
        self._frames.append(frame)
        self._size += len(frame)
        self._filled.set()
        while self._size >= _FULL_BYTES and not self._ended:
            self._emptied.clear()
            await self._emptied.wait()

    def end(self, error: LlorchError | None = None) -> None:
        """After what is in there nothing follows, or this error. The first end counts."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._filled.set()
            self._emptied.set()

    async def wait_ready(self, timeout_s: float) -> bool:
        """Whether there was something to take, or the end, within the time."""
        if self._filled.is_set():
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._filled.wait()
        except TimeoutError:
            return False
        return True

    @property
    def is_over(self) -> bool:
        """It ended, and everything was taken."""
        return self._ended and not self._frames

    @property
    def error(self) -> LlorchError | None:
        return self._error

    def take(self) -> bytes:
        """All frames that are ready, in order; empty if there are none."""
        taken = b"".join(self._frames)
        self._frames.clear()
        self._size = 0
        self._emptied.set()
        if not self._ended:
            self._filled.clear()
        return taken
