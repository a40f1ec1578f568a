"""Answers of `/v1/chat/completions`.

Thoughts are `reasoning_content`, the name that other servers of open models gave them; OpenAI shows none.
"""

from typing import ClassVar

from gatewayd.openai.fields import Json
from gatewayd.openai.generation import ChoiceText
from gatewayd.openai.logprobs import chat_logprobs
from llama_orch.v2 import log_entry_pb2, task_event_pb2


class ChatShape:
    id_prefix: ClassVar[str] = "chatcmpl"
    whole_object: ClassVar[str] = "chat.completion"
    piece_object: ClassVar[str] = "chat.completion.chunk"

    def opening(self, choice: int) -> Json:
        delta = {"role": "assistant", "content": "", "refusal": None}
        return {"index": choice, "delta": delta, "logprobs": None, "finish_reason": None}

    def piece(self, tokens: task_event_pb2.Tokens) -> Json:
        return {
            "index": tokens.choice,
            "delta": _delta(tokens),
            "logprobs": chat_logprobs(tokens.logprobs),
            "finish_reason": None,
        }

    def closing(self, choice: int, finish_reason: str) -> Json:
        return {"index": choice, "delta": {}, "logprobs": None, "finish_reason": finish_reason}

    def whole(self, choice: int, said: ChoiceText, finish_reason: str) -> Json:
        return {
            "index": choice,
            "message": _message(said),
            "logprobs": chat_logprobs(said.logprobs),
            "finish_reason": finish_reason,
        }


def _delta(tokens: task_event_pb2.Tokens) -> Json:
    if tokens.HasField("tool_call"):
        return {"tool_calls": [_tool_call_piece(tokens.tool_call)]}
    if tokens.HasField("reasoning"):
        return {"reasoning_content": tokens.reasoning}
    return {"content": tokens.text}


def _tool_call_piece(piece: log_entry_pb2.ToolCallDelta) -> Json:
    """The first piece of a call has its id and name, the others arguments alone."""
    if not piece.call_id and not piece.name:
        return {"index": piece.index, "function": {"arguments": piece.arguments}}
    function = {"name": piece.name, "arguments": piece.arguments}
    return {"index": piece.index, "id": piece.call_id, "type": "function", "function": function}


def _message(said: ChoiceText) -> Json:
    calls = [said.tool_calls[index] for index in sorted(said.tool_calls)]
    message: Json = {
        "role": "assistant",
        "content": None if calls and not said.text else said.text,
        "refusal": None,
    }
    if said.reasoning:
        message["reasoning_content"] = said.reasoning
    if calls:
        message["tool_calls"] = [
            {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
    return message
