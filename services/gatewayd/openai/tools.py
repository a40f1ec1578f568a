"""OpenAI's tools, and calls of them, as those of the contract."""

from typing import Any

from gatewayd.openai.fields import Fields, Json
from gatewayd.scalar_shape import wrong_type
from llorch.errors import invalid_field

_MODES = ("auto", "none", "required")


def read_tool(value: Any, path: str) -> Json:
    """In the JSON of the contract's ToolDefinition."""
    tool = Fields(value, path)
    function = _function(tool)
    tool.finish()
    definition = {
        "name": function.need_text("name"),
        "description": function.take_text("description") or "",
        "parameters": function.take_json("parameters"),
    }
    function.take_only("strict", False)
    function.finish()
    return definition


def read_tool_choice(value: Any) -> str:
    """A mode, or the name of the one tool that has to be called."""
    if isinstance(value, str):
        if value not in _MODES:
            raise invalid_field("tool_choice", f"it takes {', '.join(_MODES)}, or an object that names a tool")
        return value
    if not isinstance(value, dict):
        raise wrong_type("tool_choice", "a string or an object", value)
    choice = Fields(value, "tool_choice")
    function = _function(choice)
    choice.finish()
    name = function.need_text("name")
    function.finish()
    return name


def read_tool_call(value: Any, path: str) -> Json:
    """A call of an earlier turn, in the JSON of the contract's ToolCall."""
    call = Fields(value, path)
    call.take("index")  # clients that put streamed calls together leave it in
    call_id = call.need_text("id")
    function = _function(call)
    call.finish()
    shown = {"call_id": call_id, "name": function.need_text("name"), "arguments": function.need_text("arguments")}
    function.finish()
    return shown


def _function(fields: Fields) -> Fields:
    """The `function` in `{"type": "function", "function": {…}}`, the only kind of tool there is."""
    kind = fields.need_text("type")
    if kind != "function":
        raise fields.unsupported("type", "use tools of type function")
    function = fields.take_object("function")
    if function is None:
        raise invalid_field(fields.place("function"), "it is missing")
    return function
