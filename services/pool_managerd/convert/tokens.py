"""Tokens of models that are here."""

from google.protobuf.message import DecodeError

from llama_orch.v2 import pool_manager_service_pb2, tokens_pb2
from llorch.engines import EngineName
from llorch.errors import Reason, Unavailable, invalid_field


def to_engine(name: str) -> EngineName:
    if name not in list(EngineName):
        raise invalid_field("engine", f"is '{name[:80]}'; this node knows {', '.join(EngineName)}")
    return EngineName(name)


def to_tokens_response(content: bytes) -> pool_manager_service_pb2.ReadStagedTokensResponse:
    """Of what the process that read the vocabulary said, which need not be an answer."""
    try:
        answer = tokens_pb2.TokenAnswer.FromString(content)
    except DecodeError:
        raise Unavailable(Reason.ENGINE_FAILED, "what was read of the vocabulary is no answer") from None
    return pool_manager_service_pb2.ReadStagedTokensResponse(answer=answer)
