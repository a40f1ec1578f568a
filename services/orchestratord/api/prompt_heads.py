"""The beginning of a task's prompt, in blocks, by which prompts that begin alike are found.

It is made of the text, since only a worker can make tokens of it.
"""

from array import array
from collections.abc import Iterator
from hashlib import blake2b

from llama_orch.v2 import task_pb2
from orchestratord.core.facts.warmth import BLOCK_BYTES, MOST_BLOCKS, PromptHead


def to_head(spec: task_pb2.TaskSpec) -> PromptHead:
    """Of text that is to be generated; nothing of other work, of which no cache is kept.

    What a deterministic run evaluates and what another one does are no use to each other.
    """
    work = spec.generate
    hashed = blake2b(b"deterministic" if spec.deterministic else b"", digest_size=8)
    blocks = array("Q")
    size = 0
    rest = bytearray()
    for piece in _pieces(work):
        size += len(piece)
        if len(blocks) == MOST_BLOCKS:
            continue
        rest += piece[: MOST_BLOCKS * BLOCK_BYTES]
        whole = min(len(rest) // BLOCK_BYTES, MOST_BLOCKS - len(blocks)) * BLOCK_BYTES
        for at in range(0, whole, BLOCK_BYTES):
            hashed.update(rest[at : at + BLOCK_BYTES])
            blocks.append(int.from_bytes(hashed.digest()))
        del rest[:whole]
    return PromptHead(blocks, size)


def _pieces(work: task_pb2.GenerateWork) -> Iterator[bytes]:
    """In about the order in which templates put them, each with an end of its own."""
    if work.WhichOneof("input") == "prompt":
        yield work.prompt.encode()
        return
    chat = work.chat
    for text in (chat.template_values, chat.tool_choice):
        yield _ended(text)
    for tool in chat.tools:
        yield _ended(tool.name, tool.description, tool.parameters)
    for message in chat.messages:
        yield _ended(message.role, message.name, message.tool_call_id)
        for part in message.content:
            yield _ended(part.text)
        for call in message.tool_calls:
            yield _ended(call.name, call.call_id, call.arguments)


def _ended(*texts: str) -> bytes:
    return "".join(text + "\0" for text in texts).encode()
