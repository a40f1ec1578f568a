"""Tools that a model may call, and calls of earlier turns, as clients write them. Pure."""

import json
import re
from collections.abc import Mapping

from llorch.errors import invalid_field
from worker_orcd.run_spec import RunSpec, Tool, ToolCall, ToolChoice

MAX_TOOLS = 128
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
