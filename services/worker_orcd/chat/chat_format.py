"""How a model writes down its thoughts and its tool calls; known from its chat template. Pure."""

from dataclasses import dataclass, replace
from enum import StrEnum

from worker_orcd.chat.thought_marks import HARMONY, THINK, ThoughtMarks, marks_in


class ToolStyle(StrEnum):
    NONE = "none"
    HERMES = "hermes"
    """`<tool_call>{"name": …, "arguments": {…}}</tool_call>`, or a list of objects or `<function=name>` in it; Qwen and
    Hermes.
    """
    LLAMA3 = "llama3"
    """`{"name": …, "parameters": {…}}` as the whole answer, with or without `<|python_tag|>` before it, or
    `<|python_tag|>name.call(key="value")`.
    """
    MISTRAL = "mistral"
    """`[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`, in later models `[TOOL_CALLS]name[ARGS]{…}`."""
    DEEPSEEK = "deepseek"
    """`<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>name` and the arguments in a JSON block."""
    HARMONY = "harmony"
    """`<|channel|>commentary to=functions.name <|constrain|>json<|message|>{…}`; gpt-oss."""


_OPENINGS = {
    ToolStyle.NONE: "",
    ToolStyle.HERMES: "<tool_call>",
    ToolStyle.LLAMA3: "<|python_tag|>",
    ToolStyle.MISTRAL: "[TOOL_CALLS]",
    ToolStyle.DEEPSEEK: "<｜tool▁calls▁begin｜>",
    ToolStyle.HARMONY: "",
}
_FURTHER_MARKS = {
    ToolStyle.HERMES: ("</tool_call>",),
    ToolStyle.MISTRAL: ("[ARGS]", "[CALL_ID]"),
    ToolStyle.DEEPSEEK: (
        "<｜tool▁calls▁end｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁sep｜>",
    ),
}


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """With `thinks`, thoughts stand between the marks of `thoughts` before the answer."""

    tools: ToolStyle = ToolStyle.NONE
    thinks: bool = False
    thoughts: ThoughtMarks = THINK

    @property
    def tool_opening(self) -> str:
        """What begins tool calls; empty if there are none, or if a header of their message does."""
        return _OPENINGS[self.tools]

    @property
    def has_headers(self) -> bool:
        """Whether an answer is several messages, each with a header that says what it is."""
        return self.thinks and self.thoughts is HARMONY

    @property
    def marks(self) -> tuple[str, ...]:
        """Everything that may be one token of the vocabulary and has to be seen, control token or not."""
        thoughts = self.thoughts.tokens if self.thinks else ()
        calls = (self.tool_opening, *_FURTHER_MARKS.get(self.tools, ())) if self.tool_opening else ()
        return thoughts + calls

    def without_tools(self) -> "ChatFormat":
        return replace(self, tools=ToolStyle.NONE)

    def is_thinking(self, prompt_end: str) -> bool:
        """Whether the prompt has opened the thoughts already, so that the answer begins inside of them."""
        return self.thinks and prompt_end.rstrip().endswith(self.thoughts.opening)


def format_of(template: str) -> ChatFormat:
    """The format that a chat template uses, found by the marks that it writes itself."""
    thoughts = marks_in(template)
    return ChatFormat(_tool_style(template, thoughts), thinks=thoughts is not None, thoughts=thoughts or THINK)


def _tool_style(template: str, thoughts: ThoughtMarks | None) -> ToolStyle:
    if "tools" not in template and "tool_calls" not in template:
        return ToolStyle.NONE
    if thoughts is HARMONY:
        return ToolStyle.HARMONY
    if _OPENINGS[ToolStyle.HERMES] in template:
        return ToolStyle.HERMES
    if _OPENINGS[ToolStyle.DEEPSEEK] in template:
        return ToolStyle.DEEPSEEK
    if "[TOOL_CALLS]" in template or "[AVAILABLE_TOOLS]" in template:
        return ToolStyle.MISTRAL
    if "<|python_tag|>" in template or ("<|start_header_id|>" in template and "ipython" in template):
        return ToolStyle.LLAMA3
    return ToolStyle.NONE
