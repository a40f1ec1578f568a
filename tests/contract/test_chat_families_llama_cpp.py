"""Prompts of chat templates, held against jinja2 as Transformers sets it up and llama.cpp's own tokenizer."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llorch.device_kind import DeviceKind
from llorch.errors import InvalidArgument
from support.chat_families import FAMILIES, Family, write_family_model
from support.manual_clock import ManualClock
from worker_orcd.device import DeviceSet
from worker_orcd.engines.llama_cpp.model import Model
from worker_orcd.engines.llama_cpp.native import load_native
from worker_orcd.engines.llama_cpp.prompt import PromptBuilder
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.run_spec import Message, Role, RunSpec, Tool, ToolCall

pytestmark = pytest.mark.native

CONTEXT = 8192
ADD: dict[str, Any] = {
    "name": "add_numbers",
    "description": 'Adds <b>two</b> numbers & "more", wie\'s gefällt.',
    "parameters": {
        "type": "object",
        "properties": {
            "a": {"type": "number", "description": "The first one."},
            "mode": {"type": "string", "enum": ["fast", "exact"]},
            "more": {"type": "array", "items": {"type": "integer"}},
            "deep": {"type": "object", "properties": {"x": {"type": ["string", "null"]}}},
        },
        "required": ["a"],
    },
}
STOP: dict[str, Any] = {
    "name": "stop",
    "description": "Stops.",
    "parameters": {"type": "object", "properties": {"now": {"type": "boolean"}}},
}
ADDED: dict[str, Any] = {"a": 1.5, "mode": 'größer <&> "so" it\'s', "more": [1, 2], "deep": {"x": None}}
SYSTEM = {"role": "system", "content": "Answer in few words.\n\nAnd <b>right</b>."}
HELLO = {"role": "user", "content": "  Hello, who are you?\n"}


def _called(*calls: tuple[str, str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "role": "assistant",
        "tool_calls": [
            {"type": "function", "id": call_id, "function": {"name": name, "arguments": arguments}}
            for call_id, name, arguments in calls
        ],
    }


def _told(call_id: str, name: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "name": name, "tool_call_id": call_id, "content": content}


@dataclass(frozen=True, slots=True)
class Input:
    """Messages as Transformers documents them."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = field(default_factory=list)


INPUTS: dict[str, Input] = {
    "one": Input([HELLO]),
    "system": Input([SYSTEM, HELLO]),
    "turns": Input(
        [
            HELLO,
            {"role": "assistant", "content": " I am a model.  "},
            {"role": "user", "content": 'größer & <b>"so"</b> it\'s 😀\n\n\tdone '},
            {"role": "assistant", "content": "Yes,\nno."},
            {"role": "user", "content": "12345 {{ not_a_variable }} {% no_tag %}"},
        ]
    ),
    "thoughts": Input(
        [
            HELLO,
            {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nI am."},
            {"role": "user", "content": "Who made you? /think"},
        ]
    ),
    "parts": Input(
        [
            {"role": "user", "content": [{"type": "text", "text": "One, "}, {"type": "text", "text": "two."}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Three."}]},
            {"role": "user", "content": [{"type": "text", "text": " Go on "}]},
        ]
    ),
    "offered": Input([HELLO], [ADD, STOP]),
    "tools": Input(
        [
            {"role": "user", "content": "Add."},
            _called(("call00001", "add_numbers", ADDED)),
            _told("call00001", "add_numbers", '{"sum": 4.5, "wie": "größer"}'),
        ],
        [ADD, STOP],
    ),
    "said_and_called": Input(
        [
            SYSTEM,
            {"role": "user", "content": "Add."},
            {**_called(("call00001", "add_numbers", {"a": 2})), "content": "I add."},
            _told("call00001", "add_numbers", "2 <b>"),
        ],
        [ADD],
    ),
    "two_calls": Input(
        [
            {"role": "user", "content": "Add, then stop."},
            _called(("call00001", "add_numbers", ADDED), ("call00002", "stop", {"now": True})),
            _told("call00001", "add_numbers", "4.5"),
            _told("call00002", "stop", "ok"),
            {"role": "assistant", "content": "It is 4.5."},
            {"role": "user", "content": "And now?"},
        ],
        [ADD, STOP],
    ),
}


class _Generation(Extension):
    """The tag with which templates mark what an assistant said: what is in it is written."""

    tags = {"generation"}  # noqa: RUF012  as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Any) -> str:
        return str(caller())


class Refused(Exception):
    """A template's own raise_exception."""


class Reference:
    """jinja2 as Transformers documents it for the text, llama.cpp for the token ids. None of our modules."""

    def __init__(self, path: Path, family: Family, now: datetime) -> None:
        from llama_cpp import llama_cpp as lib

        self._lib: Any = lib
        self._family = family
        params = lib.llama_model_default_params()
        params.vocab_only = True
        self._model = lib.llama_model_load_from_file(str(path).encode(), params)
        self._vocabulary = lib.llama_model_get_vocab(self._model)
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = self._to_json
        environment.globals["raise_exception"] = self._raise
        environment.globals["strftime_now"] = now.strftime
        self._template = environment.from_string(family.template)

    def close(self) -> None:
        self._lib.llama_model_free(self._model)

    def text(self, given: Input, values: Mapping[str, object]) -> str:
        messages = [self._shown(message) for message in given.messages]
        tools = [{"type": "function", "function": tool} for tool in given.tools] or None
        others = {"documents": None, "bos_token": self._family.bos, "eos_token": self._family.eos} | dict(values)
        return self._template.render(messages=messages, tools=tools, add_generation_prompt=True, **others)

    def tokens(self, text: str) -> list[int]:
        """As llama.cpp's server does it: a first token that the template wrote is not written twice."""
        if self._lib.llama_vocab_get_add_bos(self._vocabulary):
            text = text.removeprefix(self._family.bos)
        raw = text.encode()
        room = (self._lib.llama_token * (len(raw) + 16))()
        count = self._lib.llama_tokenize(self._vocabulary, raw, len(raw), room, len(room), True, True)
        return list(room[:count])

    def _shown(self, message: dict[str, Any]) -> dict[str, Any]:
        """In the form that templates of the family ask for."""
        family = self._family
        shown = {"content": family.call_content, **message}
        if not isinstance(shown["content"], str | None) and shown["role"] not in family.part_roles:
            shown["content"] = "".join(part["text"] for part in shown["content"])
        if family.parts_alone and isinstance(shown["content"], str):
            shown["content"] = [{"type": "text", "text": shown["content"]}]
        if "tool_calls" in shown and family.arguments_are_text:
            shown["tool_calls"] = [
                {**call, "function": {**call["function"], "arguments": self._to_json(call["function"]["arguments"])}}
                for call in shown["tool_calls"]
            ]
        return shown

    @staticmethod
    def _to_json(
        value: object,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    @staticmethod
    def _raise(message: str) -> None:
        raise Refused(message)


@dataclass(frozen=True, slots=True)
class Opened:
    family: Family
    model: Model
    prompts: PromptBuilder
    reference: Reference

    def ids(self, given: Input, values: Mapping[str, object] | None = None) -> list[int]:
        """What our engine would evaluate."""
        spec = RunSpec(
            messages=tuple(_message(message) for message in given.messages),
            tools=tuple(Tool(tool["name"], tool["description"], tool["parameters"]) for tool in given.tools),
            template_values=values or {},
        )
        return self.prompts.prepare(EngineRun("a", spec)).tokens


def _message(shown: Mapping[str, Any]) -> Message:
    content = shown.get("content", "")
    texts = (content,) if isinstance(content, str) else tuple(part["text"] for part in content)
    return Message(
        Role(shown["role"]),
        "".join(texts),
        shown.get("name", ""),
        tuple(
            ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in shown.get("tool_calls", ())
        ),
        shown.get("tool_call_id", ""),
        texts if len(texts) > 1 else (),
    )


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: str(family.name))
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    family: Family = request.param
    path = write_family_model(tmp_path_factory.mktemp("family"), family)
    devices = DeviceSet(DeviceKind.CPU, ("cpu",))
    model = Model(load_native(), LlamaCppShape(path, "m", devices, 1, CONTEXT, threads=1), lambda: True)
    clock = ManualClock()
    prompts = PromptBuilder(model, CONTEXT, clock)
    prompts.open()
    reference = Reference(path, family, clock.wall())
    try:
        yield Opened(family, model, prompts, reference)
    finally:
        reference.close()
        prompts.close()
        model.close()


@pytest.mark.req("WORK-3006")
@pytest.mark.parametrize("name", INPUTS)
def test_a_prompt_has_the_tokens_of_jinja2_and_llama_cpp(opened: Opened, name: str) -> None:
    given = INPUTS[name]
    for values in ({}, *opened.family.values):
        if name in opened.family.refuses:
            with pytest.raises(Refused) as refusal:
                opened.reference.text(given, values)
            with pytest.raises(InvalidArgument, match=re.escape(str(refusal.value))):
                opened.ids(given, values)
        else:
            text = opened.reference.text(given, values)
            assert opened.ids(given, values) == opened.reference.tokens(text), text


def test_control_tokens_that_a_user_spells_stay_text(opened: Opened) -> None:
    spelled = " ".join(opened.family.control_tokens)
    plain = opened.ids(Input([{"role": "user", "content": "x"}]))
    meant = opened.ids(Input([{"role": "user", "content": spelled}]))
    control = {opened.reference.tokens(text)[-1] for text in opened.family.control_tokens}
    assert len(control) == len({*opened.family.control_tokens})
    assert Counter(it for it in meant if it in control) == Counter(it for it in plain if it in control)
    assert len(meant) > len(plain) + len(control)
