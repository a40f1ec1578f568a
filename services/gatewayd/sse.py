"""Server-sent events as text: https://html.spec.whatwg.org/multipage/server-sent-events.html.

Data is JSON on one line, so that no output of a model can end a frame.
"""

from typing import Any

from google.protobuf.message import Message

from gatewayd.events_json import event_json
from gatewayd.json_codec import encode_json
from gatewayd.transcode import message_to_json
from llama_orch.v2 import task_event_pb2
from llorch.errors import LlorchError

KEEP_ALIVE = b": keep-alive\n\n"


def encode_response(response: Any) -> bytes:
    """One message of a server stream as one frame; empty where there is nothing to show."""
    event = getattr(response, "event", None)
    if isinstance(event, task_event_pb2.TaskEvent):
        return _encode_task_event(event)
    return _encode_message(response)


def encode_error(error: LlorchError) -> bytes:
    """The last frame of a stream that broke. It has no id: the last event's cursor stays the place to resume."""
    shown: dict[str, Any] = {
        "type": "error",
        "code": error.reason.value,
        "message": error.message,
        "retryable": error.reason.is_retryable,
    }
    if error.retry_after_ms is not None:
        shown["retry_after_ms"] = error.retry_after_ms
    return b"event: error\ndata: %b\n\n" % encode_json(shown)


def may_begin_with(_error: LlorchError) -> bool:
    """An error before the first event is an HTTP status."""
    return False


def _encode_task_event(event: task_event_pb2.TaskEvent) -> bytes:
    shown = event_json(event)
    if shown is None:
        return b""
    return b"event: %b\nid: %b\ndata: %b\n\n" % (
        shown["type"].encode(),
        event.cursor.encode(),
        encode_json(shown),
    )


def _encode_message(message: Message) -> bytes:
    return b"event: message\ndata: %b\n\n" % message_to_json(message)
