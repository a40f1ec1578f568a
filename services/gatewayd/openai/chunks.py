"""An answer in pieces: a task's events as chunks of `data:`, ended by `[DONE]`."""

from typing import Any

from gatewayd.json_codec import encode_json
from gatewayd.openai.answer import AnswerHead, finish_reasons, receipt, usage
from gatewayd.openai.errors import error_body, failure_of
from gatewayd.openai.fields import Json
from gatewayd.openai.generation import Generation
from llama_orch.v2 import task_event_pb2
from llorch.errors import LlorchError

_DONE = b"data: [DONE]\n\n"


class ChunkFrames:
    """The frames of one stream. Nothing is sent before the first token, so that an early failure is a status."""

    def __init__(self, generation: Generation, created: int) -> None:
        self._shape = generation.shape
        self._include_usage = generation.stream.include_usage
        self._head = AnswerHead(generation.shape.id_prefix, created)
        self._opened: set[int] = set()

    def encode_response(self, response: Any) -> bytes:
        event: task_event_pb2.TaskEvent = response.event
        self._head.note(event)
        if event.HasField("tokens"):
            return self._open(event.tokens.choice) + self._chunk([self._shape.piece(event.tokens)])
        if event.HasField("end"):
            return self._finish(event.end)
        if event.HasField("error"):
            raise failure_of(event.error)
        return b""

    def encode_error(self, error: LlorchError) -> bytes:
        return _frame(error_body(error, ""))

    def may_begin_with(self, _error: LlorchError) -> bool:
        """An error before the first chunk is an HTTP status."""
        return False

    def _open(self, choice: int) -> bytes:
        if choice in self._opened:
            return b""
        self._opened.add(choice)
        opening = self._shape.opening(choice)
        return b"" if opening is None else self._chunk([opening])

    def _finish(self, end: task_event_pb2.End) -> bytes:
        frames = [
            self._open(choice) + self._chunk([self._shape.closing(choice, reason)])
            for choice, reason in finish_reasons(end)
        ]
        if self._include_usage or end.HasField("receipt"):
            frames.append(self._chunk([], **self._summary(end)))
        return b"".join(frames) + _DONE

    def _summary(self, end: task_event_pb2.End) -> Json:
        return {**({"usage": usage(end)} if self._include_usage else {}), **receipt(end)}

    def _chunk(self, choices: list[Json], **more: Any) -> bytes:
        """With `include_usage` every chunk has the field, which is null in all but the last."""
        waiting = {"usage": None} if self._include_usage else {}
        return _frame({**self._head.show(self._shape.piece_object), "choices": choices, **waiting, **more})


def _frame(data: Json) -> bytes:
    return b"data: %b\n\n" % encode_json(data)
