"""Between HTTP and protobuf: a request message out of path, query and body, an HTTP answer out of a response."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.api.httpbody_pb2 import HttpBody
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from gatewayd.json_codec import decode_json, encode_json
from gatewayd.message_shape import check_message
from gatewayd.query import read_query, read_variables
from gatewayd.routes import WHOLE_BODY, Route
from llorch.errors import invalid_field

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Content:
    """The body of an HTTP answer."""

    content_type: str
    data: bytes


def build_request(route: Route, variables: Mapping[str, str], query: bytes, body: bytes) -> Message:
    """Raises InvalidArgument, which names the field. An empty body stands for `{}`."""
    kind = route.rpc.input_type
    message: Message = message_factory.GetMessageClass(kind)()
    if route.body:
        _fill_from_body(message, route, body)
    around = read_variables(variables, kind)
    _refuse_contradiction(message, variables)
    _merge(around, read_query(query, kind, _taken(route)))
    _fill(message, around, kind)
    return message


def build_answer(route: Route, response: Message) -> Content:
    if not route.response_body:
        return Content(JSON, message_to_json(response))
    body = getattr(response, route.response_body)
    if isinstance(body, HttpBody):
        return Content(body.content_type or "application/octet-stream", body.data)
    return Content(JSON, encode_json(message_to_dict(response).get(route.response_body)))


def message_to_json(message: Message) -> bytes:
    return encode_json(message_to_dict(message))


def message_to_dict(message: Message) -> dict[str, Any]:
    """With the contract's names; what is absent is left out, what can't be absent shows its zero."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _taken(route: Route) -> tuple[str, ...]:
    """Paths of the fields that the path and the body fill."""
    if route.body == WHOLE_BODY:
        return tuple(field.name for field in route.rpc.input_type.fields)
    return (*route.template.fields, *([route.body] if route.body else []))


def _fill_from_body(message: Message, route: Route, body: bytes) -> None:
    value = decode_json(body) if body.strip() else {}
    if route.body == WHOLE_BODY:
        _fill(message, value, route.rpc.input_type)
        return
    part = getattr(message, route.body)
    part.SetInParent()
    _fill(part, value, part.DESCRIPTOR)


def _fill(message: Message, value: Any, kind: Descriptor) -> None:
    check_message(value, kind)
    json_format.ParseDict(value, message)


def _refuse_contradiction(message: Message, variables: Mapping[str, str]) -> None:
    """A body may repeat what the path says, but not say something else."""
    for path, value in variables.items():
        holder = message
        *outer, last = path.split(".")
        for name in outer:
            holder = getattr(holder, name)
        told = getattr(holder, last)
        if told and str(told) != value:
            raise invalid_field(path, f'the path says "{value}", the body something else; leave it out there')


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value
