"""Reading as much from a socket as was announced."""

import socket

_AT_ONCE = 1 << 20


def receive_exactly(line: socket.socket, size: int) -> bytes | None:
    """None if the other side goes before."""
    content = bytearray()
    while len(content) < size:
        part = line.recv(min(size - len(content), _AT_ONCE))
        if not part:
            return None
        content += part
    return bytes(content)
