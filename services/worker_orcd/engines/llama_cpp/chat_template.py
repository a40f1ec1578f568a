"""The model's own chat template, in a sandbox.

Templates are small programs that come with model files. They get the helpers that they know from
Transformers, and bounds on time and size; they can reach nothing else.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llorch.clock import Clock
from llorch.errors import FailedPrecondition, InvalidArgument, Reason, invalid_field
from worker_orcd.engines.llama_cpp.bounded_call import TimeIsUp, call_within
from worker_orcd.engines.llama_cpp.masking import Masking, Part
from worker_orcd.run_spec import Message

MAX_TEMPLATE_CHARACTERS = 256 * 1024
MAX_RENDERED_CHARACTERS = 16 * 1024 * 1024
MAX_RENDER_S = 2.0


class TemplateRefusal(jinja2.TemplateError):
    """The template itself called raise_exception: it does not take these messages."""


class ChatTemplate:
    """Compiled on construction; raises if the template of the model is not one."""

    def __init__(self, source: str, bos_text: str, eos_text: str, masking: Masking, clock: Clock) -> None:
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise FailedPrecondition(
                Reason.MODEL_LOAD_FAILED,
                f"the model's chat template has {len(source)} characters, {MAX_TEMPLATE_CHARACTERS} are allowed",
            )
        self._masking = masking
        self._own_values = {"bos_token": bos_text, "eos_token": eos_text, "add_generation_prompt": True, "tools": None}
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: clock.wall().strftime(form)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise FailedPrecondition(
                Reason.MODEL_LOAD_FAILED, f"the model's chat template can't be compiled: {error}"
            ) from None

    def render(self, messages: Sequence[Message], values: Mapping[str, object]) -> list[Part]:
        """The conversation as the model knows it, ready for its answer."""
        for name in values:
            if name == "messages" or name in self._own_values:
                raise invalid_field("generate.chat.template_values", f"must not set {name}")
        try:
            given = {name: self._masking.mask_all(value) for name, value in values.items()}
            shown = [self._shown(message) for message in messages]
            rendered = call_within(MAX_RENDER_S, lambda: self._render({**given, **self._own_values, "messages": shown}))
        except TimeIsUp:
            raise _invalid(f"took longer than {MAX_RENDER_S:g} s") from None
        except TemplateRefusal as refusal:
            raise _invalid(f"says: {refusal}") from None
        except Exception as error:
            # Whatever a template gets wrong in Python: it is about these messages, and nothing of ours.
            raise _invalid(f"failed with {type(error).__name__}") from error
        return list(self._masking.parts(rendered))

    def _render(self, variables: Mapping[str, object]) -> str:
        pieces: list[str] = []
        length = 0
        for piece in self._template.generate(variables):
            pieces.append(piece)
            length += len(piece)
            if length > MAX_RENDERED_CHARACTERS:
                raise TemplateRefusal(f"more than {MAX_RENDERED_CHARACTERS} characters")
        return "".join(pieces)

    def _shown(self, message: Message) -> dict[str, str]:
        shown = {"role": message.role.value, "content": self._masking.mask(message.content)}
        if message.name:
            shown["name"] = self._masking.mask(message.name)
        return shown


class _Sandbox(ImmutableSandboxedEnvironment):
    """Repeating a text is the short way to fill the memory, so that it is counted first."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise TemplateRefusal("powers are not allowed in templates")
        size = max(_length(left) * _number(right), _length(right) * _number(left))
        if size > MAX_RENDERED_CHARACTERS:
            raise TemplateRefusal(f"more than {MAX_RENDERED_CHARACTERS} characters")
        return super().call_binop(context, operator, left, right)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


def _number(value: Any) -> int:
    return int(value) if isinstance(value, int) else 0


def _raise_exception(message: str) -> NoReturn:
    raise TemplateRefusal(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_ignored: Any) -> str:
    """As Transformers has it: without the escapes for HTML that jinja2's own filter makes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _invalid(what: str) -> InvalidArgument:
    return InvalidArgument(Reason.INVALID_TEMPLATE, f"the model's chat template {what}")
