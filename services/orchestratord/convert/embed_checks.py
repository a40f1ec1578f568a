"""Checks the texts to embed that a client sends, before anything else sees them."""

from llama_orch.v2 import task_pb2
from llorch.errors import InvalidArgument, Reason
from llorch.options.checking import check_value
from llorch.options.embedding import EMBEDDING
from llorch.options.generation import MAX_INPUT_BYTES


def check_embed(work: task_pb2.EmbedWork) -> None:
    size = sum(len(text.encode()) for text in work.inputs)
    if size > MAX_INPUT_BYTES:
        raise InvalidArgument(
            Reason.REQUEST_TOO_LARGE,
            f"embed.inputs: the texts have {size} bytes; at most {MAX_INPUT_BYTES} are taken; send fewer at once",
        )
    check_value("embed.inputs", EMBEDDING["inputs"], work.inputs)
