import json
from dataclasses import replace

import pytest

from llama_orch.v2 import run_pb2
from llorch.errors import InvalidArgument
from worker_orcd.chat.tools import check_tools, forced_call_schema, json_object
from worker_orcd.convert.run_spec import to_run_spec
from worker_orcd.run_spec import ConstraintKind, Message, Role, RunSpec, Tool, ToolCall, ToolChoice

NUMBERS = {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "number"}}}
ADD = Tool("add", "Adds.", NUMBERS)
SPEC = RunSpec(messages=(Message(Role.USER, "x"),), tools=(ADD, Tool("weather")))


def proto() -> run_pb2.RunSpec:
    spec = run_pb2.RunSpec()
    chat = spec.generate.chat
    chat.messages.add(role="user").content.add(text="hi")
    asked = chat.messages.add(role="assistant")
    asked.tool_calls.add(call_id="c1", name="add", arguments='{"a": 1}')
    chat.messages.add(role="tool", tool_call_id="c1").content.add(text="2")
    chat.tools.add(name="add", description="Adds.", parameters='{"type": "object"}')
    chat.template_values = '{"enable_thinking": false}'
    return spec


def test_a_conversation_with_tools_is_taken_whole() -> None:
    spec = to_run_spec(proto())
    assert spec.messages[1] == Message(Role.ASSISTANT, "", tool_calls=(ToolCall("c1", "add", {"a": 1}),))
    assert spec.messages[2] == Message(Role.TOOL, "2", tool_call_id="c1")
    assert spec.tools == (Tool("add", "Adds.", {"type": "object"}),)
    assert spec.template_values == {"enable_thinking": False}
    assert (spec.tool_choice, spec.constraint) == (ToolChoice.AUTO, None)
    assert {demand.capability for demand in spec.demands} == {"generation", "chat", "tools"}


def test_parts_of_a_message_are_kept_beside_the_text_that_they_make() -> None:
    asked = proto()
    asked.generate.chat.messages[0].content.add(text=" there")
    messages = to_run_spec(asked).messages
    assert (messages[0].content, messages[0].parts) == ("hi there", ("hi", " there"))
    assert messages[2].parts == ()


def test_tools_that_have_to_be_called_constrain_the_output() -> None:
    asked = proto()
    asked.generate.chat.tool_choice = "required"
    spec = to_run_spec(asked)
    assert spec.constraint is not None
    assert spec.constraint.kind is ConstraintKind.JSON_SCHEMA
    assert "json_schema" in {demand.capability for demand in spec.demands}
    asked.generate.output_constraint.grammar = 'root ::= "x"'
    with pytest.raises(InvalidArgument, match="output_constraint"):
        to_run_spec(asked)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("parameters", "{", r"tools\[0\]\.parameters: is not JSON"),
        ("parameters", "[]", r"tools\[0\]\.parameters: has to be a JSON object"),
        ("parameters", "[" * 100_000, r"tools\[0\]\.parameters: is not JSON"),
        ("name", "", r"tools\[0\]\.name"),
        ("name", "a b", r"tools\[0\]\.name"),
        ("name", "x" * 65, r"tools\[0\]\.name"),
    ],
)
def test_a_tool_that_can_not_be_right_is_refused_by_name(field: str, value: str, named: str) -> None:
    asked = proto()
    setattr(asked.generate.chat.tools[0], field, value)
    with pytest.raises(InvalidArgument, match=named):
        to_run_spec(asked)


def test_calls_of_earlier_turns_are_checked_too() -> None:
    asked = proto()
    asked.generate.chat.messages[1].tool_calls[0].arguments = "nothing"
    with pytest.raises(InvalidArgument, match=r"messages\[1\]\.tool_calls\[0\]\.arguments"):
        to_run_spec(asked)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (replace(SPEC, tools=(ADD, ADD)), "same name"),
        (replace(SPEC, tools=tuple(Tool(f"t{n}") for n in range(129))), "129"),
        (replace(SPEC, tool_choice="subtract"), "tool_choice"),
        (replace(SPEC, tools=(), tool_choice="required"), "no tools"),
    ],
)
def test_tools_that_do_not_go_together_are_refused(spec: RunSpec, named: str) -> None:
    with pytest.raises(InvalidArgument, match=named):
        check_tools(spec)


def test_the_schema_of_a_forced_call_keeps_definitions_at_its_root() -> None:
    assert forced_call_schema(SPEC.tools, ToolChoice.AUTO) is None
    assert forced_call_schema(SPEC.tools, ToolChoice.NONE) is None
    one = json.loads(forced_call_schema(SPEC.tools, "add") or "")
    assert one["properties"]["name"] == {"const": "add"}
    assert one["properties"]["arguments"] == {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}}
    assert one["$defs"] == {"n": {"type": "number"}}
    both = json.loads(forced_call_schema(SPEC.tools, ToolChoice.REQUIRED) or "")
    assert [call["properties"]["name"]["const"] for call in both["anyOf"]] == ["add", "weather"]
    other = Tool("other", "", {"$defs": {"n": {"type": "string"}}})
    with pytest.raises(InvalidArgument, match=r"\$defs/n in different ways"):
        forced_call_schema((ADD, other), ToolChoice.REQUIRED)


def test_no_text_is_an_empty_object() -> None:
    assert json_object("x", "") == {}
