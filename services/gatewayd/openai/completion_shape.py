"""Answers of `/v1/completions`."""

from collections import Counter
from typing import ClassVar

from gatewayd.openai.fields import Json
from gatewayd.openai.generation import ChoiceText
from gatewayd.openai.logprobs import completion_logprobs
from llama_orch.v2 import task_event_pb2


class CompletionShape:
    """Thoughts are a part of the text, as the model wrote them."""

    id_prefix: ClassVar[str] = "cmpl"
    whole_object: ClassVar[str] = "text_completion"
    piece_object: ClassVar[str] = "text_completion"

    def __init__(self) -> None:
        self._offsets: Counter[int] = Counter()

    def opening(self, choice: int) -> None:
        """Nothing comes before the text."""

    def piece(self, tokens: task_event_pb2.Tokens) -> Json:
        offset = self._offsets[tokens.choice]
        self._offsets[tokens.choice] += sum(len(each.chosen.text) for each in tokens.logprobs)
        return {
            "index": tokens.choice,
            "text": tokens.reasoning or tokens.text,
            "logprobs": completion_logprobs(tokens.logprobs, offset),
            "finish_reason": None,
        }

    def closing(self, choice: int, finish_reason: str) -> Json:
        return {"index": choice, "text": "", "logprobs": None, "finish_reason": finish_reason}

    def whole(self, choice: int, said: ChoiceText, finish_reason: str) -> Json:
        return {
            "index": choice,
            "text": said.reasoning + said.text,
            "logprobs": completion_logprobs(said.logprobs, 0),
            "finish_reason": finish_reason,
        }
