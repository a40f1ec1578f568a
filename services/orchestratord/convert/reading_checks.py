"""Checks the texts that a client sends to be read, for vectors or scores, before anything else sees them."""

from google.protobuf.message import Message

from llama_orch.v2 import task_pb2
from llorch.errors import InvalidArgument, Reason
from llorch.options.checking import check_entries, check_value
from llorch.options.embedding import EMBEDDING
from llorch.options.generation import MAX_INPUT_BYTES
from llorch.options.option import Table
from llorch.options.rerank import RERANK


def check_embed(work: task_pb2.EmbedWork) -> int:
    """The characters that the model reads. Raises InvalidArgument that names what can't be right."""
    check_entries("embed.inputs", EMBEDDING["inputs"], len(work.inputs))
    _check_size("embed.inputs: the texts have", sum(len(text.encode()) for text in work.inputs))
    _check_options("embed", EMBEDDING, work)
    return sum(map(len, work.inputs))


def check_rerank(work: task_pb2.RerankWork) -> int:
    """The characters that the model reads, the query once for each document. Raises InvalidArgument as above."""
    check_entries("rerank.documents", RERANK["documents"], len(work.documents))
    size = len(work.documents) * len(work.query.encode()) + sum(len(text.encode()) for text in work.documents)
    _check_size("rerank.documents: with the query once for each, they have", size)
    _check_options("rerank", RERANK, work)
    return len(work.documents) * len(work.query) + sum(map(len, work.documents))


def _check_options(kind: str, table: Table, work: Message) -> None:
    for name, option in table.items():
        check_value(f"{kind}.{name}", option, getattr(work, name))


def _check_size(what: str, size: int) -> None:
    if size > MAX_INPUT_BYTES:
        raise InvalidArgument(
            Reason.REQUEST_TOO_LARGE,
            f"{what} {size} bytes; at most {MAX_INPUT_BYTES} are taken; send fewer at once",
        )
