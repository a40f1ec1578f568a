"""The model's own chat template: from messages and tools to the text that the model knows."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from llorch.clock import Clock
from llorch.errors import FailedPrecondition, InvalidArgument, Reason, invalid_field
from llorch.options.continuation import not_shown
from worker_orcd.engines.llama_cpp.masking import Masking, Part, up_to_end, with_end
from worker_orcd.rendering.renderer import Renderer, RenderFailed, RenderLimits
from worker_orcd.run_spec import Message, Tool

MAX_TEMPLATE_CHARACTERS = 256 * 1024
_NOT_GIVEN = {"documents": None}
"""What Transformers gives to every template, for some ask whether it is none."""
_HALF = re.compile("[\ud800-\udfff]")
"""Half of a pair that stands for one character, alone. JSON can say it, UTF-8 can't."""


class ChatTemplate:
    """Runs in a process of its own, from `open` to `close`."""

    def __init__(
        self,
        source: str,
        bos_text: str,
        eos_text: str,
        masking: Masking,
        clock: Clock,
        limits: RenderLimits | None = None,
    ) -> None:
        self._masking = masking
        self._clock = clock
        self._own_values = {"bos_token": bos_text, "eos_token": eos_text, "add_generation_prompt": True}
        self._source = source
        self._renderer = Renderer(source, limits)

    def open(self) -> None:
        """Compiles the template; raises FailedPrecondition if it is none."""
        if len(self._source) > MAX_TEMPLATE_CHARACTERS:
            raise FailedPrecondition(
                Reason.MODEL_LOAD_FAILED,
                f"the model's chat template has {len(self._source)} characters, {MAX_TEMPLATE_CHARACTERS} are allowed",
            )
        try:
            self._renderer.open()
        except RenderFailed as error:
            raise FailedPrecondition(Reason.MODEL_LOAD_FAILED, f"the model's chat template {error}") from None

    def render(
        self,
        messages: Sequence[Message],
        values: Mapping[str, object],
        tools: Sequence[Tool] = (),
        now: datetime | None = None,
        *,
        continues: bool = False,
    ) -> list[Part]:
        """The conversation as the model knows it, ready for its answer; if it `continues`, up to the end of the last
        message's text. `tools` as Transformers hands them over.

        `now` is what it takes for the present, where that is not the clock's time.
        """
        own = {**self._own_values, "messages": self._shown_messages(messages), "tools": [_shown_tool(t) for t in tools]}
        own["add_generation_prompt"] = not continues
        for name in values:
            if name in own:
                raise invalid_field("generate.chat.template_values", f"must not set {name}")
        try:
            masked = {name: self._masking.mask_all(value) for name, value in {**_NOT_GIVEN, **values}.items()}
            masked_messages: Any = self._masking.mask_all(own.pop("messages"))
            last = "".join(masked_messages[-1]["content"]) if continues else ""
            if continues:
                masked_messages[-1]["content"] = [with_end(last)]
            masked["messages"] = masked_messages
            masked["tools"] = self._masking.mask_all(own.pop("tools")) or None
            rendered = self._renderer.render({**masked, **own}, now or self._clock.wall())
        except RenderFailed as error:
            raise _invalid(str(error)) from None
        except RecursionError:
            raise _invalid("got values that are nested too deep") from None
        if _HALF.search(rendered):
            raise _invalid("wrote what is no character; look for \\ud800 to \\udfff in what JSON there is")
        shown_text = up_to_end(rendered, last) if continues else rendered
        if shown_text is None:
            raise not_shown()
        return list(self._masking.parts(shown_text))

    def close(self) -> None:
        self._renderer.close()

    def _shown_messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        names = {call.call_id: call.name for message in messages for call in message.tool_calls}
        return [_shown(message, self._texts(message), names) for message in messages]

    def _texts(self, message: Message) -> list[str]:
        """The parts of its content, or all of it, where two of them could make a control token."""
        is_open = any(self._masking.is_open(part) for part in message.parts[:-1])
        return [message.content] if is_open or not message.parts else [*message.parts]


def _shown(message: Message, texts: list[str], names: Mapping[str, str]) -> dict[str, Any]:
    """What is not there is left out: templates ask whether it is defined. A tool's result gets the name of its call."""
    shown: dict[str, Any] = {"role": message.role.value, "content": texts}
    if name := message.name or names.get(message.tool_call_id, ""):
        shown["name"] = name
    if message.tool_call_id:
        shown["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        shown["tool_calls"] = [
            {"type": "function", "id": call.call_id, "function": {"name": call.name, "arguments": dict(call.arguments)}}
            for call in message.tool_calls
        ]
    return shown


def _shown_tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _invalid(what: str) -> InvalidArgument:
    return InvalidArgument(Reason.INVALID_TEMPLATE, f"the model's chat template {what}")
