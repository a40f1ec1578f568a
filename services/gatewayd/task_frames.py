"""The events of a task that goes on without its readers: how they are told that they have to come back.

A browser's EventSource reads on by itself where a stream ends, with the id of the last event in `Last-Event-ID`. It
stops for good where the answer has any other status than 200, and a page takes an event of the type `error` as the end
of the task. So a stream that broke ends with `retry:` and no event, and a reader that comes back while the orchestrator
is still away, or this gateway is full, is not refused with a status, but answered with 200, told to come back, and let
go.
"""

from typing import Any

from gatewayd import sse
from gatewayd.json_codec import encode_json
from llorch.errors import LlorchError, Reason
from llorch.rpc.status import has_broken

COME_BACK_AFTER_MS = 1000
"""At least, also after a reset: the browser keeps the last `retry:` for whatever breaks later."""

_BEFORE_THE_FIRST = b"0.0"
"""A cursor that any log of a task can be read from, as the orchestrator has nothing to start over before it."""


class TaskFrames:
    """`comes_back`: the reader has told the id of its last event."""

    def __init__(self, *, comes_back: bool) -> None:
        self._comes_back = comes_back

    def encode_response(self, response: Any) -> bytes:
        return sse.encode_response(response)

    def encode_error(self, error: LlorchError) -> bytes:
        if _is_reset(error):
            return _reset(error)
        return _come_back(error) if _may_pass(error) else sse.encode_error(error)

    def may_begin_with(self, error: LlorchError) -> bool:
        return self._comes_back and (_is_reset(error) or _may_pass(error))


def _may_pass(error: LlorchError) -> bool:
    """Nothing is said of the task: the call broke on its way, or was refused for now."""
    return error.reason.is_retryable or has_broken(error)


def _is_reset(error: LlorchError) -> bool:
    return error.reason is Reason.STREAM_RESET


def _come_back(error: LlorchError) -> bytes:
    """The comment is for people; programs see the end of the connection and no event."""
    why = " ".join(f"{error.reason}: {error.message}".split())
    return b": %b\nretry: %d\n\n" % (why.encode(), max(error.retry_after_ms or 0, COME_BACK_AFTER_MS))


def _reset(error: LlorchError) -> bytes:
    """The output starts over. The id stays with an EventSource: it goes before an old `?after=`, which would be told
    of the reset again and again, and the reader is known as one that comes back if the orchestrator is away once more.
    """
    shown = {"type": "reset", "code": error.reason.value, "message": error.message}
    return b"event: reset\nid: %b\nretry: %d\ndata: %b\n\n" % (
        _BEFORE_THE_FIRST,
        COME_BACK_AFTER_MS,
        encode_json(shown),
    )
