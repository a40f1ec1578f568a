"""Tokens: what clients ask about them, and what they are answered."""

from llama_orch.v2 import task_service_pb2 as pb2
from llama_orch.v2 import tokens_pb2
from llorch.errors import InvalidArgument, Reason, invalid_field
from llorch.options.generation import MAX_INPUT_BYTES
from llorch.options.tokens import TOKENIZE
from orchestratord.convert.option_checks import check_options
from orchestratord.convert.tasks import to_prompt


def to_count_question(request: pb2.CountTokensRequest) -> tokens_pb2.TokenQuestion:
    return tokens_pb2.TokenQuestion(prompt=to_prompt(request.task))


def to_count_response(answer: tokens_pb2.TokenAnswer, context: int | None) -> pb2.CountTokensResponse:
    return pb2.CountTokensResponse(tokens_in=answer.count, context=context)


def to_text_question(request: pb2.TokenizeRequest) -> tokens_pb2.TokenQuestion:
    """Raises InvalidArgument that names the first field that can't be right."""
    if not request.model:
        raise invalid_field("model", "must not be empty; `llorch models` lists the models")
    size = len(request.text.encode())
    if size > MAX_INPUT_BYTES:
        raise InvalidArgument(
            Reason.REQUEST_TOO_LARGE,
            f"text: has {size} bytes; at most {MAX_INPUT_BYTES} are taken; send less",
        )
    if not request.text:
        raise invalid_field("text", "must not be empty")
    check_options("", TOKENIZE, request)
    text = tokens_pb2.TextToTokenize(
        text=request.text,
        control_tokens=request.control_tokens,
        add_special=request.add_special if request.HasField("add_special") else True,
        with_pieces=request.with_pieces,
    )
    return tokens_pb2.TokenQuestion(text=text)


def to_tokenize_response(answer: tokens_pb2.TokenAnswer) -> pb2.TokenizeResponse:
    return pb2.TokenizeResponse(token_ids=answer.token_ids, pieces=answer.pieces)
