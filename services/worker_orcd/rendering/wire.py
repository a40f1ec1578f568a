"""JSON messages with their length before them, over the one socket between worker and renderer."""

import json
import socket
import struct
from typing import Any

from llorch.exact_bytes import receive_exactly

_LENGTH = struct.Struct("<I")


def send(line: socket.socket, message: dict[str, Any]) -> None:
    content = json.dumps(message).encode()
    line.sendall(_LENGTH.pack(len(content)) + content)


def receive(line: socket.socket) -> dict[str, Any] | None:
    """The next message; None if the other side has gone."""
    head = receive_exactly(line, _LENGTH.size)
    content = receive_exactly(line, _LENGTH.unpack(head)[0]) if head else None
    return json.loads(content) if content else None
