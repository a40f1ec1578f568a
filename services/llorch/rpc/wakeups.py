"""How grpc.aio's own thread wakes the event loop.

For each event of any call, that thread writes one byte into a pair of sockets. The loop's side takes one byte, handles
all events that are there, and is woken by each further byte once more, for nothing: 0.8 turns of the loop per message
of 64 streams, and 0.1 where it takes all bytes at once (docs/adr/0003-http-server.md).
"""

import socket
from typing import Any

from grpc._cython import cygrpc  # type: ignore[attr-defined]

_AT_ONCE = 4096


class _TakesAll(socket.socket):
    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        return super().recv(_AT_ONCE, flags)


class _Sockets:
    """The module `socket`, as grpc.aio sees it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)

    @staticmethod
    def socketpair() -> tuple[socket.socket, socket.socket]:
        reader, writer = socket.socketpair()
        return _TakesAll(reader.family, reader.type, reader.proto, fileno=reader.detach()), writer


def wake_once() -> None:
    """Before the first channel or server of a process is made. Where the library does it otherwise, nothing changes."""
    if isinstance(getattr(cygrpc, "socket", None), type(socket)):
        cygrpc.socket = _Sockets()
