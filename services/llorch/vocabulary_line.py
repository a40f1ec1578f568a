"""What is said between a pool manager and the process that reads a model's vocabulary for it, over a socket.

A message is its kind, its length, and its content. To each question comes one answer, refusal or failure.
"""

import socket
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from llorch.exact_bytes import receive_exactly

HEAD = Struct("<BI")


class Kind(IntEnum):
    """A QUESTION is a `TokenQuestion` of the contract, an ANSWER a `TokenAnswer`. The others are a `google.rpc.Status`:
    a REFUSED question leaves the process there for others, one that FAILED ends with it.
    """

    QUESTION = 0
    ANSWER = 1
    REFUSED = 2
    FAILED = 3


class Said(NamedTuple):
    kind: Kind
    content: bytes


def packed(said: Said) -> bytes:
    return HEAD.pack(said.kind, len(said.content)) + said.content


def send(line: socket.socket, said: Said) -> None:
    line.sendall(packed(said))


def receive(line: socket.socket) -> Said | None:
    """The next message; None if the other side has gone."""
    head = receive_exactly(line, HEAD.size)
    if head is None:
        return None
    kind, length = HEAD.unpack(head)
    content = receive_exactly(line, length)
    return None if content is None else Said(Kind(kind), content)
