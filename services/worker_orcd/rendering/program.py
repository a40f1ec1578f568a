"""A chat template as a program: jinja2's sandbox with the helpers that templates know from Transformers."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_RENDERED_CHARACTERS = 16 * 1024 * 1024

_OWN_VALUES = ("bos_token", "eos_token", "add_generation_prompt")
_NEEDLES = ("needle-5b1f", "needle-77c2")
_AS_DATA = "{'type'"
_TRIALS = {
    "system": ("system", "user"),
    "user": ("user",),
    "assistant": ("user", "assistant", "user"),
    "tool": ("user", "assistant", "tool"),
}
"""A conversation per role, to see in which forms the content of that role comes through."""

Content = str | list[dict[str, str]]


class TemplateRefusal(jinja2.TemplateError):
    """The template itself called raise_exception: it does not take these messages."""


class CallArguments(dict[str, Any]):
    """Arguments of a tool call. Some templates write them with `tojson`, others take them for text: to these they
    are JSON text.
    """

    def __str__(self) -> str:
        return _to_json(self)

    def __add__(self, other: object) -> str:
        return str(self) + str(other)

    def __radd__(self, other: object) -> str:
        return str(other) + str(self)


class GenerationTag(Extension):
    """`{% generation %}` marks what an assistant said, for training; a prompt is the same without it."""

    tags = {"generation"}  # noqa: RUF012  # as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@dataclass(frozen=True, slots=True)
class _Taken:
    """In which forms a template takes what it is given. `one_as_part` are roles whose content it walks over, so that a
    text would be a list of characters to it; `many` are those whose parts it writes all.

    `null_beside_calls`: it knows an assistant's message of calls alone by its content, which is null.
    """

    one_as_part: frozenset[str]
    many: frozenset[str]
    null_beside_calls: bool

    def content(self, role: str, texts: list[str]) -> Content:
        if len(texts) > 1 and role in self.many:
            return _as_parts(*texts)
        return _as_parts("".join(texts)) if role in self.one_as_part else "".join(texts)


class Program:
    """Compiled on construction; raises jinja2.TemplateError if it can't be."""

    def __init__(self, source: str) -> None:
        self._now: datetime | None = None
        self._taken: _Taken | None = None
        """Found out when it renders first."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationTag]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = self._strftime_now
        self._template = environment.from_string(source)

    def render(self, variables: dict[str, Any], now: datetime) -> str:
        """`variables` as JSON has them; `messages` is one of them, each with the texts that its content is made of."""
        self._now = now
        if self._taken is None:
            # Without the values of a client: what is found out holds for all of them.
            self._taken = self._find_out({name: variables[name] for name in _OWN_VALUES if name in variables})
        for message in variables["messages"]:
            message["content"] = self._taken.content(message["role"], message["content"])
            calls = message.get("tool_calls", ())
            if calls and not message["content"] and self._taken.null_beside_calls:
                message["content"] = None
            for call in calls:
                call["function"]["arguments"] = CallArguments(call["function"]["arguments"])
        return _limited(self._template.generate, variables)

    def _find_out(self, variables: dict[str, Any]) -> _Taken:
        one_as_part = {role: self._wants_parts(role, variables) for role in _TRIALS}
        if one_as_part["tool"] is None:  # few templates take a tool's answer that no call came before
            one_as_part["tool"] = one_as_part["user"]
        return _Taken(
            frozenset(role for role, wants in one_as_part.items() if wants),
            frozenset(role for role in _TRIALS if self._comes_through(role, _as_parts(*_NEEDLES), variables)),
            not self._shows_call("", variables) and self._shows_call(None, variables),
        )

    def _wants_parts(self, role: str, variables: dict[str, Any]) -> bool | None:
        """Most templates take a text. None where neither form comes through."""
        if _NEEDLES[0] in self._tried(role, _NEEDLES[0], variables):
            return False
        shown = self._tried(role, _as_parts(_NEEDLES[0]), variables)
        return _AS_DATA not in shown if _NEEDLES[0] in shown else None

    def _comes_through(self, role: str, content: Content, variables: dict[str, Any]) -> bool:
        shown = self._tried(role, content, variables)
        return _AS_DATA not in shown and all(needle in shown for needle in _NEEDLES)

    def _tried(self, role: str, content: Content, variables: dict[str, Any]) -> str:
        """The others say something in the same form."""
        other: object = "x" if isinstance(content, str) else _as_parts("x")
        messages = [{"role": each, "content": content if each == role else other} for each in _TRIALS[role]]
        return self._shown(messages, variables)

    def _shows_call(self, content: str | None, variables: dict[str, Any]) -> bool:
        call = {
            "type": "function",
            "id": "call00000",
            "function": {"name": _NEEDLES[0], "arguments": CallArguments()},
        }
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": content, "tool_calls": [call]},
            {"role": "tool", "content": "x", "name": _NEEDLES[0], "tool_call_id": "call00000"},
        ]
        return _NEEDLES[0] in self._shown(messages, variables)

    def _shown(self, messages: list[dict[str, Any]], variables: dict[str, Any]) -> str:
        """Nothing where the template refuses such messages, or fails."""
        given = {**variables, "messages": messages, "tools": None, "documents": None}
        try:
            return _limited(self._template.generate, given)
        except Exception:  # noqa: BLE001  # whatever it does wrong with them, it is no form that it takes
            return ""

    def _strftime_now(self, form: str) -> str:
        assert self._now is not None  # a template runs only in `render`
        return self._now.strftime(form)


def _as_parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def _limited(generate: Callable[[dict[str, Any]], Any], variables: dict[str, Any]) -> str:
    pieces: list[str] = []
    length = 0
    for piece in generate(variables):
        pieces.append(piece)
        length += len(piece)
        if length > MAX_RENDERED_CHARACTERS:
            raise TemplateRefusal(f"more than {MAX_RENDERED_CHARACTERS} characters")
    return "".join(pieces)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateRefusal(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **others: Any) -> str:
    """As Transformers has it: without the escapes for HTML that jinja2's own filter makes."""
    known = {name: others[name] for name in ("separators", "sort_keys") if name in others}
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **known)
