"""The workaround for grpc.aio's wake-ups still meets what the library does, and harms no call."""

import subprocess
import sys

_SCRIPT = """
import asyncio, socket
from llorch.rpc import wakeups

made = []
plain = wakeups._Sockets.socketpair

def socketpair():
    pair = plain()
    made.append(pair)
    return pair

wakeups._Sockets.socketpair = staticmethod(socketpair)
wakeups.wake_once()
wakeups.wake_once()

import grpc

async def answer(request, context):
    for number in range(50):
        await context.write(b"%d" % number)

async def main():
    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a", {"b": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        read = [[part async for part in channel.unary_stream("/a/b")(b"")] for _ in range(3)]
    await server.stop(None)
    assert read == [[b"%d" % number for number in range(50)]] * 3
    assert len(made) == 1, made

asyncio.run(main())
reader, writer = plain()
writer.send(b"11111")
assert reader.recv(1) == b"11111"
reader.close(), writer.close()
"""


def test_all_wake_ups_that_are_there_are_taken_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
