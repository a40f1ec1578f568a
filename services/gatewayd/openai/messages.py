"""OpenAI's messages as those of the contract."""

from typing import Any

from gatewayd.openai.fields import Fields, Json
from gatewayd.openai.tools import read_tool_call
from gatewayd.scalar_shape import wrong_type
from llorch.errors import FieldViolation, InvalidArgument, Reason, invalid_field

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
"""OpenAI's newer models call the system `developer`; templates know it under the old name."""


def read_message(value: Any, path: str) -> Json:
    """In the JSON of the contract's ChatMessage. A client may send an earlier answer back unchanged."""
    fields = Fields(value, path)
    role = fields.need_text("role")
    if role not in _ROLES:
        raise invalid_field(fields.place("role"), f"it takes {', '.join(_ROLES)}")
    message: Json = {"role": _ROLES[role], "content": _content(fields)}
    if (name := fields.take_text("name")) is not None:
        message["name"] = name
    if role == "tool":
        message["tool_call_id"] = fields.need_text("tool_call_id")
    if role == "assistant":
        message["tool_calls"] = [read_tool_call(*call) for call in fields.take_items("tool_calls")]
        _drop_what_answers_bring(fields)
    fields.finish()
    return message


def _drop_what_answers_bring(fields: Fields) -> None:
    """A client repeats our answer whole. Earlier thoughts are not for the model: its template leaves them out."""
    fields.take_text("reasoning_content")
    fields.take_only("annotations", [])


def _content(fields: Fields) -> list[Json]:
    content = fields.take("content")
    if content is None:
        return []
    if isinstance(content, str):
        return [{"text": content}]
    place = fields.place("content")
    if not isinstance(content, list):
        raise wrong_type(place, "a string or a list of parts", content)
    return [_part(part, f"{place}[{number}]") for number, part in enumerate(content)]


def _part(value: Any, path: str) -> Json:
    part = Fields(value, path)
    kind = part.need_text("type")
    if kind != "text":
        raise InvalidArgument(
            Reason.UNSUPPORTED_CONTENT,
            f"{path}: no engine here takes {kind[:40]} yet; send parts of type text",
            violations=(FieldViolation(path, "not supported"),),
        )
    text = part.need_text("text")
    part.finish()
    return {"text": text}
