from typing import Any

import numpy as np
import pytest

from llama_orch.v2 import task_pb2
from llorch.errors import InvalidArgument
from llorch.sdk.task_spec import embed_spec, generate_spec, rerank_spec


def test_a_text_is_what_a_user_says() -> None:
    spec = generate_spec("smollm2", "Hi", {"system": "Be brief."})

    assert [(m.role, m.content[0].text) for m in spec.generate.chat.messages] == [
        ("system", "Be brief."),
        ("user", "Hi"),
    ]


def test_raw_gives_the_text_as_it_is() -> None:
    spec = generate_spec("smollm2", "Once upon", {"raw": True})

    assert spec.generate.prompt == "Once upon"


def test_messages_are_taken_over() -> None:
    spec = generate_spec("smollm2", [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], {})

    assert [m.role for m in spec.generate.chat.messages] == ["user", "assistant"]


def test_options_land_in_their_places_and_absent_ones_stay_absent() -> None:
    spec = generate_spec("smollm2", "Hi", {"max_tokens": 5, "temperature": 0.0, "stop": ["\n"], "deadline_ms": 900})

    assert spec.generate.max_tokens == 5
    assert spec.generate.sampling.HasField("temperature")
    assert not spec.generate.sampling.HasField("seed")
    assert list(spec.generate.stop) == ["\n"]
    assert spec.deadline_ms == 900


def test_a_conversation_with_tools_is_said_whole() -> None:
    spec = generate_spec(
        "smollm2",
        [
            {"role": "user", "content": ["What is this?", {"image": {"media_type": "image/png", "data": b"x"}}]},
            {"role": "assistant", "tool_calls": [{"call_id": "c1", "name": "look", "arguments": {"at": "ü"}}]},
            {"role": "tool", "tool_call_id": "c1", "name": "look", "content": "a cat"},
        ],
        {"tools": [{"name": "look", "parameters": {"type": "object"}}], "tool_choice": "look"},
    )

    user, assistant, tool = spec.generate.chat.messages
    assert [part.WhichOneof("part") for part in user.content] == ["text", "image"]
    assert assistant.tool_calls[0].arguments == '{"at": "ü"}'
    assert (tool.tool_call_id, tool.content[0].text) == ("c1", "a cat")
    assert spec.generate.chat.tools[0].parameters == '{"type": "object"}'


def test_json_that_is_text_already_stays_as_it_is() -> None:
    spec = generate_spec("smollm2", "Hi", {"json_schema": '{"type":"object"}', "template_values": {"deep": [1]}})

    assert spec.generate.output_constraint.json_schema == '{"type":"object"}'
    assert spec.generate.chat.template_values == '{"deep": [1]}'


def test_one_text_stands_for_a_list_of_one() -> None:
    spec = generate_spec("smollm2", "Hi", {"stop": "END", "placement": {"pin": "garage/3090"}})

    assert list(spec.generate.stop) == ["END"]
    assert list(spec.placement.pin) == ["garage/3090"]


def test_texts_are_embedded_also_one_alone() -> None:
    assert list(embed_spec("smollm2", "Hi", {}).embed.inputs) == ["Hi"]
    assert list(embed_spec("smollm2", ("a", "b"), {"priority": "batch"}).embed.inputs) == ["a", "b"]
    assert embed_spec("smollm2", [], {}).WhichOneof("work") == "embed"


NESTED: dict[str, Any] = {}
for _ in range(20_000):
    NESTED = {"a": NESTED}


@pytest.mark.parametrize(
    ("prompt", "options", "field", "remedy"),
    [
        ("Hi", {"max_tokens": -1}, "max_tokens", "a whole number from 0"),
        ("Hi", {"max_tokens": True}, "max_tokens", "a whole number"),
        ("Hi", {"max_tokens": 5.0}, "max_tokens", "a whole number"),
        ("Hi", {"seed": 2**64}, "seed", "18446744073709551615"),
        ("Hi", {"temperature": "hot"}, "temperature", "give a number"),
        ("Hi", {"temperature": 10**400}, "temperature", "a float can hold"),
        ("Hi", {"deterministic": 1}, "deterministic", "True or False"),
        ("Hi", {"max_token": 5}, "max_token", "'max_tokens'"),
        ("Hi", {"qqq": 5}, "qqq", "there are adapters, "),
        ("Hi", {"app": "aider"}, "app", "is unknown"),
        ("Hi", {"logit_bias": {"7": 1}}, "logit_bias['7']", "a whole number"),
        ("Hi", {"logit_bias": [7]}, "logit_bias", "a mapping"),
        ("Hi", {"stop": 5}, "stop", "a list"),
        ("Hi", {"stop": b"END"}, "stop", "a list"),
        ("Hi", {"stop": ["a", 5]}, "stop[1]", "text"),
        ("Hi", {"placement": "garage"}, "placement", "a mapping of pin, prefer"),
        ("Hi", {"placement": {"mask": ["x"]}}, "placement.mask", "device_mask"),
        ("Hi", {"session_budget": {"turns": "3"}}, "session_budget.turns", "a whole number"),
        ("Hi", {"json_schema": 5}, "json_schema", "text or a mapping"),
        ("Hi", {"json_schema": {"a": {1, 2}}}, "json_schema", "JSON"),
        ("Hi", {"json_schema": {"a": float("nan")}}, "json_schema", "JSON"),
        ("Hi", {"json_schema": NESTED}, "json_schema", "JSON"),
        ("Hi", {"max_tokens": NESTED}, "max_tokens", "a whole number"),
        ("Hi", {"json_schema": {}, "grammar": "root ::= x"}, "grammar", "'json_schema'; give one"),
        ("Hi", {"tools": [{"nme": "now"}]}, "tools[0].nme", "'name'"),
        ("Hi", {"raw": "no"}, "raw", "True or False"),
        ("Hi", {"system": 5}, "system", "text"),
        (b"Hi", {}, "prompt", "text, or a list of messages"),
        ("\udcff", {}, "prompt", "UTF-8"),
        ("\udcff", {"raw": True}, "prompt", "UTF-8"),
        ([{"role": "user", "content": "Hi"}], {"raw": True}, "raw", "text prompt"),
        ("Hi", {"raw": True, "tools": [{"name": "now"}]}, "raw", "without system, tools"),
        ([{"role": "user", "text": "Hi"}], {}, "messages[0].text", "content"),
        ([{"role": "user", "content": "\udcff"}], {}, "messages[0].content[0].text", "UTF-8"),
        ([{"role": "user", "content": [{"type": "text"}]}], {}, "messages[0].content[0].type", "there are"),
        ([{"role": "user", "content": {"text": "x", "image": {}}}], {}, "messages[0].content[0].image", "'text'"),
        ([5], {}, "messages[0]", "a mapping of role"),
    ],
)
def test_what_the_contract_cannot_hold_is_refused_by_name(prompt: Any, options: Any, field: str, remedy: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        generate_spec("smollm2", prompt, options)
    assert refused.value.violations[0].field == field
    assert remedy in refused.value.violations[0].description


@pytest.mark.parametrize(("name", "value"), [("max_tokens", np.array([1, 2])), ("temperature", np.array([0.1, 0.2]))])
def test_an_array_in_place_of_a_number_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidArgument) as refused:
        generate_spec("m", "p", {name: value})  # type: ignore[misc]  # callers without types say so
    assert refused.value.field == name or refused.value.message.startswith(f"{name}: ")


def test_documents_are_ordered_all_or_the_best_of_them() -> None:
    spec = rerank_spec("m", "why", ("a", "b"), 1, {"priority": "batch"})
    assert (spec.rerank.query, list(spec.rerank.documents), spec.rerank.top_n) == ("why", ["a", "b"], 1)
    assert (spec.model, spec.priority) == ("m", "batch")
    assert rerank_spec("m", "why", "one", None, {}).rerank == task_pb2.RerankWork(query="why", documents=["one"])
