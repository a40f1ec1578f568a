"""A chat template as a program: jinja2's sandbox with the helpers that templates know from Transformers."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_RENDERED_CHARACTERS = 16 * 1024 * 1024

_OWN_VALUES = ("bos_token", "eos_token", "add_generation_prompt")
_NEEDLE = "needle-5b1f"
_AS_DATA = "{'type'"
_TRIALS = {
    "system": (("system", _NEEDLE), ("user", "x")),
    "user": (("user", _NEEDLE),),
    "assistant": (("user", "x"), ("assistant", _NEEDLE), ("user", "x")),
    "tool": (("user", "x"), ("assistant", "x"), ("tool", _NEEDLE)),
}
"""A conversation per role, to see in which form the content of that role comes through."""


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


class Program:
    """Compiled on construction; raises jinja2.TemplateError if it can't be."""

    def __init__(self, source: str) -> None:
        self._now: datetime | None = None
        self._takes_parts: frozenset[str] | None = None
        """Roles whose content the template walks over as parts; found out when it renders first."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationTag]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = self._strftime_now
        self._template = environment.from_string(source)

    def render(self, variables: dict[str, Any], now: datetime) -> str:
        """`variables` as JSON has them; `messages` is one of them."""
        self._now = now
        if self._takes_parts is None:
            # Without the values of a client: what is found out holds for all of them.
            own = {name: variables[name] for name in _OWN_VALUES if name in variables}
            wanted = {role: self._wants_parts(role, own) for role in _TRIALS}
            if wanted["tool"] is None:  # few templates take a tool's answer that no call came before
                wanted["tool"] = wanted["user"]
            self._takes_parts = frozenset(role for role, wants in wanted.items() if wants)
        for message in variables["messages"]:
            if message["role"] in self._takes_parts:
                message["content"] = _as_parts(message["content"])
            for call in message.get("tool_calls", ()):
                call["function"]["arguments"] = CallArguments(call["function"]["arguments"])
        return _limited(self._template.generate, variables)

    def _wants_parts(self, role: str, variables: dict[str, Any]) -> bool | None:
        """Most templates take a text. To one that walks over parts it is a list of characters, and nothing of it comes
        through. None where neither comes through.
        """
        if _NEEDLE in self._tried(_TRIALS[role], str, variables):
            return False
        shown = self._tried(_TRIALS[role], _as_parts, variables)
        return _AS_DATA not in shown if _NEEDLE in shown else None

    def _tried(
        self, trial: tuple[tuple[str, str], ...], form: Callable[[str], object], variables: dict[str, Any]
    ) -> str:
        """Nothing where the template refuses such messages, or fails."""
        messages = [{"role": role, "content": form(text)} for role, text in trial]
        try:
            return _limited(self._template.generate, {**variables, "messages": messages, "tools": None})
        except Exception:  # noqa: BLE001  # whatever it does wrong with them, it is no form that it takes
            return ""

    def _strftime_now(self, form: str) -> str:
        assert self._now is not None  # a template runs only in `render`
        return self._now.strftime(form)


def _as_parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


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
