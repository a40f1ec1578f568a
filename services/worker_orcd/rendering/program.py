"""A chat template as a program: jinja2's sandbox with the helpers that templates know from Transformers."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_RENDERED_CHARACTERS = 16 * 1024 * 1024


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


class Program:
    """Compiled on construction; raises jinja2.TemplateError if it can't be."""

    def __init__(self, source: str) -> None:
        self._now: datetime | None = None
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = self._strftime_now
        self._template = environment.from_string(source)

    def render(self, variables: dict[str, Any], now: datetime) -> str:
        """`variables` as JSON has them; `messages` is one of them."""
        self._now = now
        for message in variables["messages"]:
            for call in message.get("tool_calls", ()):
                call["function"]["arguments"] = CallArguments(call["function"]["arguments"])
        return _limited(self._template.generate, variables)

    def _strftime_now(self, form: str) -> str:
        assert self._now is not None  # a template runs only in `render`
        return self._now.strftime(form)


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
