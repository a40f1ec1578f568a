"""Reads one answer: what in it is text, what are thoughts, and what are tool calls. Pure.

Text goes in in pieces of any size; the result is the same whatever they are. What can't be told yet is held back:
the beginning of a mark, white space before it is known whether a mark follows, and a tool call until it is
complete. What does not become a call is text in the end, with its mark: nothing is lost.

    START ──"<think>"──► THOUGHTS ──"</think>"──► START
      │  └─"{", Llama 3──► CALL ──read──► START
      └──► TEXT ──opening mark──► CALL ──no call──► TEXT
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from worker_orcd.chat.chat_format import THINK_CLOSE, THINK_OPEN, ChatFormat, ToolStyle
from worker_orcd.chat.function_tags import typed_arguments
from worker_orcd.chat.tool_syntax import SCANS, object_alone
from worker_orcd.log_entry import ToolCallDelta
from worker_orcd.text.stop_strings import earliest_stop, held_from

EARLY = 256
"""A call that is longer than this is looked at again only when something closes in it."""
_CLOSING = frozenset("}])>")


@dataclass(frozen=True, slots=True)
class Said:
    text: str
    is_thought: bool = False


Content = Said | ToolCallDelta


class _At(Enum):
    START = auto()
    TEXT = auto()
    THOUGHTS = auto()
    CALL = auto()


class AnswerReader:
    """`tools` are those that the model was offered, by name, with the schemas of their parameters; without any, calls
    are not looked for.

    `thinking`: the prompt has opened the thoughts already. `must_call`: the answer is a call, after thoughts at
    most, and nothing else. `call_id` gives call number n its id.
    """

    def __init__(
        self,
        chat_format: ChatFormat,
        *,
        tools: Collection[str] | Mapping[str, Mapping[str, Any]] = (),
        thinking: bool = False,
        must_call: bool = False,
        call_id: Callable[[int], str] = str,
    ) -> None:
        self._thinks = chat_format.thinks
        self._tools: Mapping[str, Mapping[str, Any]] = (
            tools if isinstance(tools, Mapping) else {name: {} for name in tools}
        )
        self._opening = chat_format.tool_opening if tools else ""
        self._scan = object_alone if must_call else SCANS.get(chat_format.tools)
        self._takes_bare_calls = bool(tools) and chat_format.tools is ToolStyle.LLAMA3
        self._call_id = call_id
        self._must_call = must_call
        self._at = _At.THOUGHTS if thinking else _At.START
        self._after_mark = thinking
        self._mark = ""
        """The opening of the call that is being read; empty for one without."""
        self._pending = ""
        self._old = 0
        """How many characters of `_pending`, its first, were said before the answer."""
        self._contents: list[Content] = []
        self.calls = 0
        """How many calls there were so far."""

    @property
    def in_thoughts(self) -> bool:
        """Whether what comes next is a thought."""
        return self._at is _At.THOUGHTS

    def go_on_after(self, text: str) -> bool:
        """Takes what was said before the answer, which may have begun thoughts and is no part of it. False if it ends
        within a call. Before everything else.
        """
        self._pending = text
        self._advance(is_whole=False)
        self._old = len(self._pending)
        self._contents.clear()
        self.calls = 0
        return self._at is not _At.CALL

    def read(self, text: str) -> list[Content] | None:
        """Takes the next piece; what is known since the last answer, or None if part of that is held back."""
        self._pending += text
        if self._at is not _At.CALL or len(self._pending) <= EARLY or not _CLOSING.isdisjoint(text):
            self._advance(is_whole=False)
        return None if self._pending or self._at is _At.CALL else self._take()

    def flush(self) -> list[Content]:
        """The end of the answer: what was held back is decided."""
        self._advance(is_whole=True)
        self._say(self._pending)
        self._pending = ""
        return self._take()

    def _advance(self, is_whole: bool) -> None:
        while self._step(is_whole):
            pass

    def _step(self, is_whole: bool) -> bool:
        """Goes on by one decision; False if there is nothing to decide before more text comes."""
        if self._after_mark and self._at is not _At.CALL:
            self._pending = self._pending.lstrip()
            self._after_mark = not self._pending
        match self._at:
            case _At.START:
                return self._begin(is_whole)
            case _At.TEXT:
                return self._read_text()
            case _At.THOUGHTS:
                return self._read_thoughts()
            case _At.CALL:
                return self._read_call(is_whole)

    def _begin(self, is_whole: bool) -> bool:
        begun = self._pending.lstrip(" \t\r\n;," if self.calls and self._takes_bare_calls else None)
        if not begun:
            return False
        if self._thinks and begun.startswith(THINK_OPEN):
            return self._go(_At.THOUGHTS, begun[len(THINK_OPEN) :])
        if self._takes_bare_calls and begun.startswith("{"):
            self._mark = ""
            return self._go(_At.CALL, begun)
        if self._thinks and not is_whole and THINK_OPEN.startswith(begun):
            return False
        if self._must_call and not self.calls:
            self._mark = ""
            return self._go(_At.CALL, begun)
        return self._go(_At.TEXT, self._pending)

    def _read_text(self) -> bool:
        if not self._opening:
            self._say(self._pending)
            self._pending = ""
            return False
        return self._read_until(self._opening, _At.CALL)

    def _read_thoughts(self) -> bool:
        return self._read_until(THINK_CLOSE, _At.START)

    def _read_until(self, mark: str, then: _At) -> bool:
        found, at = earliest_stop(self._pending, (mark,))
        if found:
            self._say(self._pending[:at])
            self._mark = mark
            return self._go(then, self._pending[at + len(mark) :])
        held = held_from(self._pending, (mark,))
        self._say(self._pending[:held])
        self._pending = self._pending[held:]
        return False

    def _read_call(self, is_whole: bool) -> bool:
        assert self._scan is not None  # without a style of tool calls nothing leads here
        found = self._scan(self._pending, is_whole)
        if found is None:
            return False
        if not found.calls or (not self._mark and found.calls[0].name not in self._tools):
            return self._take_back()
        for call in found.calls:
            arguments = call.arguments
            if call.texts is not None:
                arguments = typed_arguments(call.texts, self._tools.get(call.name, {}))
            delta = ToolCallDelta(self.calls, self._call_id(self.calls), call.name, arguments)
            self._contents.append(delta)
            self.calls += 1
        return self._go(_At.START, self._pending[found.end :])

    def _take_back(self) -> bool:
        """It is no call: text, from its mark on, or from its brace on where it had none."""
        mark, pending = (self._mark, self._pending) if self._mark else (self._pending[:1], self._pending[1:])
        self._go(_At.TEXT, pending)
        self._say(mark)
        return True

    def _go(self, to: _At, pending: str) -> bool:
        """`pending` is what follows the mark that led there: what is taken off before it was old first."""
        self._old = max(0, self._old - (len(self._pending) - len(pending)))
        self._after_mark = to is not _At.TEXT
        self._at = to
        self._pending = pending
        return True

    def _say(self, text: str) -> None:
        text, self._old = text[self._old :], max(0, self._old - len(text))
        if not text:
            return
        said = Said(text, is_thought=self._at is _At.THOUGHTS)
        last = self._contents[-1] if self._contents else None
        if isinstance(last, Said) and last.is_thought == said.is_thought:
            said = Said(last.text + text, said.is_thought)
            self._contents.pop()
        self._contents.append(said)

    def _take(self) -> list[Content]:
        contents, self._contents = self._contents, []
        return contents
