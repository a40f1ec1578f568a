"""Requests of OpenAI's API as tasks: every field has its place in the contract, or is refused by name."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.openai.chat_request import read_chat
from gatewayd.openai.completion_request import read_completion
from gatewayd.openai.generation import Generation
from llama_orch.v2 import task_pb2
from llorch.errors import InvalidArgument, Reason

HI = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}}
CALL = {"id": "c0", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def chat(**fields: Any) -> Generation:
    return read_chat(json.dumps({"model": "m", "messages": [HI], **fields}).encode())


def completion(**fields: Any) -> Generation:
    return read_completion(json.dumps({"model": "m", "prompt": "hi", **fields}).encode())


def refusal(read: Any, **fields: Any) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        read(**fields)
    return caught.value


def test_a_plain_chat_sets_nothing_else() -> None:
    task = chat().task
    assert task == task_pb2.TaskSpec(
        model="m",
        generate=task_pb2.GenerateWork(
            chat=task_pb2.ChatInput(
                messages=[task_pb2.ChatMessage(role="user", content=[task_pb2.ContentPart(text="hi")])]
            ),
        ),
    )


def test_options_reach_the_contract() -> None:
    generation = chat(
        temperature=0.5,
        top_p=0.9,
        seed=3,
        presence_penalty=0.1,
        frequency_penalty=-0.1,
        logit_bias={"7": -100},
        n=2,
        stop=["a", "b"],
        max_tokens=9,
        logprobs=True,
        top_logprobs=2,
        stream=True,
        stream_options={"include_usage": True},
    )
    work = generation.task.generate
    sampling = work.sampling
    assert (sampling.temperature, sampling.seed, sampling.logit_bias[7]) == (0.5, 3, -100)
    assert sampling.top_p == pytest.approx(0.9)
    assert sampling.presence_penalty == pytest.approx(0.1)
    assert sampling.frequency_penalty == pytest.approx(-0.1)
    assert (work.n, list(work.stop), work.max_tokens, work.top_logprobs) == (2, ["a", "b"], 9, 2)
    assert (generation.stream.wanted, generation.stream.include_usage) == (True, True)


def test_extensions_reach_the_contract() -> None:
    task = chat(
        priority="batch",
        deadline_ms=500,
        session_id="s",
        deterministic=True,
        request_id="r",
        placement={"pin": ["garage/3090"]},
        top_k=5,
        min_p=0.0,
        mirostat=2,
        dry_multiplier=0.5,
        stop_token_ids=[2],
        ignore_eos=True,
        grammar='root ::= "a"',
        template_values={"enable_thinking": False},
    ).task
    assert (task.priority, task.deadline_ms, task.session_id, task.request_id) == ("batch", 500, "s", "r")
    assert task.deterministic
    assert task.placement.pin == ["garage/3090"]
    sampling = task.generate.sampling
    assert (sampling.top_k, sampling.min_p, sampling.mirostat, sampling.dry_multiplier) == (5, 0.0, 2, 0.5)
    assert sampling.HasField("min_p")
    assert (list(task.generate.stop_token_ids), task.generate.ignore_eos) == ([2], True)
    assert task.generate.output_constraint.grammar == 'root ::= "a"'
    assert json.loads(task.generate.chat.template_values) == {"enable_thinking": False}


def test_one_stop_string_is_a_list_of_one() -> None:
    assert list(chat(stop="END").task.generate.stop) == ["END"]


def test_the_limit_has_two_names() -> None:
    assert chat(max_completion_tokens=4).task.generate.max_tokens == 4
    assert chat(max_completion_tokens=4, max_tokens=4).task.generate.max_tokens == 4
    assert refusal(chat, max_completion_tokens=4, max_tokens=5).violations[0].field == "max_completion_tokens"
    assert "max_completion_tokens" in refusal(chat, max_completion_tokens="x").message


SO_FAR = [HI, {"role": "assistant", "content": "so"}]


@pytest.mark.parametrize(
    "said",
    [
        {"continue_last_message": True},
        {"continue_final_message": True},
        {"continue_final_message": True, "add_generation_prompt": False},
        {"continue_final_message": True, "continue_last_message": True},
    ],
)
def test_the_last_message_is_continued_under_either_name(said: dict[str, Any]) -> None:
    assert chat(messages=SO_FAR, **said).task.generate.continue_last_message


def test_a_new_message_begins_where_nothing_else_is_said() -> None:
    for said in ("continue_final_message", False), ("add_generation_prompt", True):
        assert chat(messages=SO_FAR, **dict([said])).task == chat(messages=SO_FAR).task


def test_null_is_the_same_as_no_field() -> None:
    nothing = dict.fromkeys(
        ("stop", "tools", "functions", "seed", "stream", "stream_options", "logprobs", "n", "audio")
    )
    assert chat(**nothing).task == chat().task


def test_who_asks_changes_nothing() -> None:
    harmless = {
        "user": "u",
        "metadata": {"a": "b"},
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "store": False,
        "service_tier": "auto",
        "modalities": ["text"],
        "parallel_tool_calls": True,
    }
    assert chat(**harmless).task == chat().task


def test_log_probabilities() -> None:
    assert not chat(logprobs=False).task.generate.HasField("top_logprobs")
    assert chat(logprobs=True).task.generate.HasField("top_logprobs")
    assert refusal(chat, top_logprobs=2).violations[0].field == "top_logprobs"
    assert completion(logprobs=0).task.generate.HasField("top_logprobs")
    assert completion(logprobs=3).task.generate.top_logprobs == 3
    assert refusal(completion, logprobs=True).violations[0].field == "logprobs"


@pytest.mark.parametrize(
    ("response_format", "schema"),
    [
        ({"type": "text"}, ""),
        ({"type": "json_object"}, '{"type":"object"}'),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "string"}}},
            '{"type":"string"}',
        ),
    ],
)
def test_response_formats(response_format: dict[str, Any], schema: str) -> None:
    assert chat(response_format=response_format).task.generate.output_constraint.json_schema == schema


def test_messages_of_every_role() -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "name": "Ann", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "annotations": [],
            "reasoning_content": "Hmm.",
            "tool_calls": [{**CALL, "index": 0}],
        },
        {"role": "tool", "tool_call_id": "c0", "content": "7"},
    ]
    read = chat(messages=messages, tools=[TOOL], tool_choice="required").task.generate.chat
    assert [message.role for message in read.messages] == ["system", "user", "assistant", "tool"]
    assert [part.text for part in read.messages[1].content] == ["a", "b"]
    assert read.messages[1].name == "Ann"
    assert list(read.messages[2].tool_calls) == [task_pb2.ToolCall(call_id="c0", name="look", arguments="{}")]
    assert read.messages[3].tool_call_id == "c0"
    definition = task_pb2.ToolDefinition(name="look", description="Looks.", parameters='{"type":"object"}')
    assert list(read.tools) == [definition]
    assert read.tool_choice == "required"


def test_one_tool_can_be_demanded() -> None:
    choice = {"type": "function", "function": {"name": "look"}}
    assert chat(tools=[TOOL], tool_choice=choice).task.generate.chat.tool_choice == "look"


def test_a_prompt_is_one_text() -> None:
    assert completion().task.generate.prompt == "hi"
    assert completion(prompt=["hi"]).task.generate.prompt == "hi"
    assert completion(echo=False, best_of=1, suffix="").task == completion().task


@pytest.mark.parametrize(
    ("fields", "reason", "param"),
    [
        ({"functions": []}, Reason.UNSUPPORTED_OPTION, "functions"),
        ({"audio": {"voice": "x"}}, Reason.UNSUPPORTED_OPTION, "audio"),
        ({"store": True}, Reason.UNSUPPORTED_OPTION, "store"),
        ({"store": 0}, Reason.UNSUPPORTED_OPTION, "store"),
        ({"modalities": ["text", "audio"]}, Reason.UNSUPPORTED_OPTION, "modalities"),
        ({"parallel_tool_calls": False}, Reason.UNSUPPORTED_OPTION, "parallel_tool_calls"),
        ({"service_tier": "flex"}, Reason.UNSUPPORTED_OPTION, "service_tier"),
        ({"reasoning_effort": "high"}, Reason.UNSUPPORTED_OPTION, "reasoning_effort"),
        ({"tools": [{"type": "custom"}]}, Reason.UNSUPPORTED_OPTION, "tools[0].type"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
            Reason.UNSUPPORTED_OPTION,
            "tools[0].function.strict",
        ),
        ({"temprature": 1}, Reason.UNKNOWN_FIELD, "temprature"),
        ({"messages": [{**HI, "contents": ""}]}, Reason.UNKNOWN_FIELD, "messages[0].contents"),
        ({"stream": True, "stream_options": {"x": 1}}, Reason.UNKNOWN_FIELD, "stream_options.x"),
        ({"response_format": {"type": "text", "x": 1}}, Reason.UNKNOWN_FIELD, "response_format.x"),
        ({"placement": {"x": 1}}, Reason.UNKNOWN_FIELD, "placement.x"),
        ({"stream_options": {}}, Reason.INVALID_FIELD, "stream_options"),
        ({"messages": []}, Reason.INVALID_FIELD, "messages"),
        ({"messages": [{"content": "hi"}]}, Reason.INVALID_FIELD, "messages[0].role"),
        ({"messages": [{"role": "function"}]}, Reason.INVALID_FIELD, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "7"}]}, Reason.INVALID_FIELD, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": 7}]}, Reason.MALFORMED_REQUEST, "messages[0].content"),
        ({"messages": "hi"}, Reason.MALFORMED_REQUEST, "messages"),
        ({"messages": ["hi"]}, Reason.MALFORMED_REQUEST, "messages[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            Reason.UNSUPPORTED_CONTENT,
            "messages[0].content[0]",
        ),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, Reason.INVALID_FIELD, "messages[0].content[0].text"),
        ({"model": ""}, Reason.INVALID_FIELD, "model"),
        ({"model": None}, Reason.INVALID_FIELD, "model"),
        ({"model": 7}, Reason.MALFORMED_REQUEST, "model"),
        ({"temperature": "hot"}, Reason.MALFORMED_REQUEST, "temperature"),
        ({"seed": -1}, Reason.INVALID_FIELD, "seed"),
        ({"n": 1.5}, Reason.MALFORMED_REQUEST, "n"),
        ({"stop": 7}, Reason.MALFORMED_REQUEST, "stop"),
        ({"stop": [7]}, Reason.MALFORMED_REQUEST, "stop[0]"),
        ({"stream": "yes"}, Reason.MALFORMED_REQUEST, "stream"),
        ({"logit_bias": {"x": 1}}, Reason.MALFORMED_REQUEST, "logit_bias['x']"),
        ({"tool_choice": "look"}, Reason.INVALID_FIELD, "tool_choice"),
        ({"tool_choice": 7}, Reason.MALFORMED_REQUEST, "tool_choice"),
        ({"response_format": {"type": "xml"}}, Reason.INVALID_FIELD, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, Reason.INVALID_FIELD, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            Reason.INVALID_FIELD,
            "response_format.json_schema.schema",
        ),
        ({"response_format": {"type": "json_object"}, "grammar": "x"}, Reason.INVALID_FIELD, "grammar"),
        ({"continue_final_message": 1}, Reason.MALFORMED_REQUEST, "continue_final_message"),
        (
            {"continue_final_message": False, "continue_last_message": True},
            Reason.INVALID_FIELD,
            "continue_final_message",
        ),
        ({"add_generation_prompt": False}, Reason.INVALID_FIELD, "add_generation_prompt"),
        (
            {"continue_final_message": True, "add_generation_prompt": True},
            Reason.INVALID_FIELD,
            "add_generation_prompt",
        ),
        ({"template_values": "x"}, Reason.MALFORMED_REQUEST, "template_values"),
        ({"template_values": {"a": "\ud800"}}, Reason.INVALID_FIELD, "template_values"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"a": "\ud800"}}}},
            Reason.INVALID_FIELD,
            "response_format.json_schema",
        ),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], reason: Reason, param: str) -> None:
    error = refusal(chat, **fields)
    assert (error.reason, error.violations[0].field) == (reason, param)
    assert error.message.startswith(param)


def test_a_number_that_no_json_holds_is_named() -> None:
    tools = b'[{"type": "function", "function": {"name": "f", "parameters": {"maximum": 1e999}}}]'
    with pytest.raises(InvalidArgument, match="too large") as caught:
        read_chat(b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": %b}' % tools)
    assert caught.value.violations[0].field == "tools[0].function.parameters"


@pytest.mark.parametrize(
    ("fields", "reason", "param"),
    [
        ({"prompt": ["a", "b"]}, Reason.UNSUPPORTED_OPTION, "prompt"),
        ({"prompt": [1, 2]}, Reason.UNSUPPORTED_OPTION, "prompt"),
        ({"prompt": None}, Reason.INVALID_FIELD, "prompt"),
        ({"prompt": 7}, Reason.MALFORMED_REQUEST, "prompt"),
        ({"echo": True}, Reason.UNSUPPORTED_OPTION, "echo"),
        ({"suffix": "x"}, Reason.UNSUPPORTED_OPTION, "suffix"),
        ({"best_of": 3}, Reason.UNSUPPORTED_OPTION, "best_of"),
        ({"messages": [HI]}, Reason.UNKNOWN_FIELD, "messages"),
        ({"template_values": {}}, Reason.UNKNOWN_FIELD, "template_values"),
    ],
)
def test_what_is_wrong_in_a_completion_is_named(fields: dict[str, Any], reason: Reason, param: str) -> None:
    error = refusal(completion, **fields)
    assert (error.reason, error.violations[0].field) == (reason, param)


def test_a_wrong_name_brings_the_right_one() -> None:
    assert "did you mean temperature?" in refusal(chat, temprature=1).message


ANY_TEXT = st.text(st.characters(codec=None, categories=("L", "N", "P", "Cs")), max_size=5)
"""Halves of surrogate pairs too."""
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    *("model", "messages", "prompt", "stream", "stream_options", "stop", "seed", "temperature", "max_tokens"),
    *("max_completion_tokens", "n", "logit_bias", "logprobs", "top_logprobs", "tools", "tool_choice"),
    *("response_format", "grammar", "template_values", "placement", "deadline_ms", "user"),
]


@given(body=st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_whatever_comes_is_read_or_refused(body: dict[str, Any]) -> None:
    for read in (read_chat, read_completion):
        for message in (HI, body.get("messages")):
            with contextlib.suppress(InvalidArgument):
                read(json.dumps({**body, "messages": message}).encode())
