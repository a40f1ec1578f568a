"""A task's events as an answer: what its whole and its pieces have in common, and the whole."""

from dataclasses import dataclass
from typing import Any

from gatewayd.openai.errors import failure_of
from gatewayd.openai.fields import Json
from gatewayd.openai.generation import ChoiceText, Shape
from gatewayd.transcode import message_to_dict
from llama_orch.v2 import task_event_pb2
from llorch.errors import DeadlineExceeded, FailedPrecondition, Reason, Unavailable

_FINISH_REASONS = {
    task_event_pb2.FINISH_REASON_EOS: "stop",
    task_event_pb2.FINISH_REASON_STOP_STRING: "stop",
    task_event_pb2.FINISH_REASON_LENGTH: "length",
    task_event_pb2.FINISH_REASON_CONTEXT_FULL: "length",
    task_event_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
}


@dataclass(slots=True)
class AnswerHead:
    """What every object of one answer begins with. `created` is in seconds since 1970."""

    id_prefix: str
    created: int
    task_id: str = ""
    model: str = ""
    fingerprint: str | None = None

    def note(self, event: task_event_pb2.TaskEvent) -> None:
        """Started says which task and model it is, Placed what computes it."""
        if event.HasField("started"):
            self.task_id, self.model = event.task_id, event.started.model
        elif event.HasField("placed"):
            self.fingerprint = _fingerprint(event.placed)

    def show(self, kind: str) -> Json:
        return {
            "id": f"{self.id_prefix}-{self.task_id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


class WholeAnswer:
    """An answer that is sent when it is complete."""

    def __init__(self, shape: Shape, created: int) -> None:
        self._shape = shape
        self._head = AnswerHead(shape.id_prefix, created)
        self._said: dict[int, ChoiceText] = {}
        self._end: task_event_pb2.End | None = None

    def take(self, event: task_event_pb2.TaskEvent) -> None:
        """Raises LlorchError where the task failed."""
        self._head.note(event)
        if event.HasField("tokens"):
            self._said.setdefault(event.tokens.choice, ChoiceText()).add(event.tokens)
        elif event.HasField("end"):
            self._end = event.end
        elif event.HasField("error"):
            raise failure_of(event.error)

    def show(self) -> Json:
        """Raises LlorchError where the task ended without an answer."""
        if self._end is None:
            raise Unavailable(Reason.UPSTREAM_UNAVAILABLE, "the stream ended before its task did")
        return {
            **self._head.show(self._shape.whole_object),
            "choices": [
                self._shape.whole(choice, self._said.get(choice, ChoiceText()), reason)
                for choice, reason in finish_reasons(self._end)
            ],
            "usage": usage(self._end),
            **receipt(self._end),
        }


def finish_reasons(end: task_event_pb2.End) -> list[tuple[int, str]]:
    """(choice, reason) of each. Raises LlorchError where the task was cancelled or its deadline passed."""
    reasons: set[Any] = {choice.finish_reason for choice in end.choices}
    if task_event_pb2.FINISH_REASON_DEADLINE in reasons:
        raise DeadlineExceeded(Reason.DEADLINE_PASSED, "the deadline passed before the answer was complete")
    if task_event_pb2.FINISH_REASON_CANCELLED in reasons:
        raise FailedPrecondition(Reason.CANCELLED, "the task was cancelled before its answer was complete")
    return [(choice.choice, _FINISH_REASONS.get(choice.finish_reason, "stop")) for choice in end.choices]


def usage(end: task_event_pb2.End) -> Json:
    return {
        "prompt_tokens": end.tokens_in,
        "completion_tokens": end.tokens_out,
        "total_tokens": end.tokens_in + end.tokens_out,
        "prompt_tokens_details": {"cached_tokens": end.cached_tokens},
    }


def receipt(end: task_event_pb2.End) -> Json:
    """An extension: what a deterministic answer depends on, in the form that /v2 gives it."""
    return {"receipt": message_to_dict(end.receipt)} if end.HasField("receipt") else {}


def _fingerprint(placed: task_event_pb2.Placed) -> str:
    """Engine and version, and whether a CPU or the simulation answered."""
    marks = [mark for mark, is_set in (("cpu", placed.cpu), ("simulated", placed.simulated)) if is_set]
    return "-".join([placed.engine, placed.engine_version, *marks])
