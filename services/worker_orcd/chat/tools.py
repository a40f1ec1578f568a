"""Tools that a model may call, and calls of earlier turns, as clients write them. Pure."""

import json
import re
from collections.abc import Mapping, Sequence

from llorch.errors import invalid_field
from llorch.options.generation import MAX_TOOLS
from worker_orcd.run_spec import RunSpec, Tool, ToolCall, ToolChoice

_DEFINITIONS = ("$defs", "definitions")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def tool(path: str, name: str, description: str, parameters: str) -> Tool:
    if not _NAME.fullmatch(name):
        raise invalid_field(f"{path}.name", "has to have 1 to 64 characters of [A-Za-z0-9_-]")
    return Tool(name, description, json_object(f"{path}.parameters", parameters))


def tool_call(path: str, call_id: str, name: str, arguments: str) -> ToolCall:
    if not name:
        raise invalid_field(f"{path}.name", "must not be empty")
    return ToolCall(call_id, name, json_object(f"{path}.arguments", arguments))


def json_object(path: str, text: str) -> Mapping[str, object]:
    """The object that a text is; empty for an empty text."""
    if not text:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid_field(path, f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise invalid_field(path, "has to be a JSON object")
    return value


def forced_call_schema(tools: Sequence[Tool], choice: str) -> str | None:
    """The JSON schema of a call of one of the tools that have to be called; None if none has to be."""
    if choice in (ToolChoice.AUTO, ToolChoice.NONE):
        return None
    wanted = [tool for tool in tools if choice in (ToolChoice.REQUIRED, tool.name)]
    definitions: dict[str, object] = {}
    for tool in wanted:
        for keyword in _DEFINITIONS:
            _merge(definitions, keyword, tool.parameters.get(keyword))
    calls = [_call_schema(tool) for tool in wanted]
    return json.dumps({**(calls[0] if len(calls) == 1 else {"anyOf": calls}), **definitions})


def _call_schema(tool: Tool) -> dict[str, object]:
    parameters = {name: value for name, value in tool.parameters.items() if name not in _DEFINITIONS}
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": parameters or {"type": "object"}},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _merge(definitions: dict[str, object], keyword: str, given: object) -> None:
    """References start at the root of a schema: what they refer to has to be there."""
    if not isinstance(given, dict):
        return
    known = definitions.setdefault(keyword, {})
    assert isinstance(known, dict)  # the line above put it there
    for name, schema in given.items():
        if known.setdefault(name, schema) != schema:
            raise invalid_field("generate.chat.tools", f"two tools define {keyword}/{name} in different ways")


def check_tools(spec: RunSpec) -> None:
    names = [tool.name for tool in spec.tools]
    if len(names) > MAX_TOOLS:
        raise invalid_field("generate.chat.tools", f"has {len(names)} entries; at most {MAX_TOOLS} are taken")
    if len(set(names)) < len(names):
        raise invalid_field("generate.chat.tools", "has two tools of the same name")
    if spec.tool_choice not in (*ToolChoice, *names):
        raise invalid_field("generate.chat.tool_choice", "has to be auto, none, required, or the name of a tool")
    if spec.tool_choice == ToolChoice.REQUIRED and not names:
        raise invalid_field("generate.chat.tool_choice", "is required, but there are no tools")
