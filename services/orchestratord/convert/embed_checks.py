"""What a client says about texts to embed is checked before anything else sees it."""

from llama_orch.v2 import task_pb2
from llorch.errors import InvalidArgument, Reason, invalid_field
from llorch.request_limits import MAX_EMBED_INPUTS, MAX_INPUT_BYTES


def check_embed(work: task_pb2.EmbedWork) -> None:
    if not 1 <= len(work.inputs) <= MAX_EMBED_INPUTS:
        raise invalid_field("embed.inputs", f"has {len(work.inputs)} texts; it has to have 1 to {MAX_EMBED_INPUTS}")
    for index, text in enumerate(work.inputs):
        if not text:
            raise invalid_field(f"embed.inputs[{index}]", "must not be empty")
    size = sum(len(text.encode()) for text in work.inputs)
    if size > MAX_INPUT_BYTES:
        raise InvalidArgument(
            Reason.REQUEST_TOO_LARGE,
            f"embed.inputs: the texts have {size} bytes; at most {MAX_INPUT_BYTES} are taken; send fewer at once",
        )
