"""Reads one answer: what in it is text, what are thoughts, and what are tool calls. Pure.

Text goes in in pieces of any size; put together, the result is the same whatever they are. What can't be told yet is
held back: the beginning of a mark, white space before it is known whether a mark follows, and a tool call until it is
one whatever follows. From there on its arguments are told as they come. What does not become a call is text in the
end, with its mark: nothing is lost.

    START ──opening, header──► THOUGHTS ──closing──► START
      │  └─"{", Llama 3; header──► CALL
      └──► TEXT ──end of the answer──► START
             └──opening mark──► CALL ──whole──► CLOSING ──► START, or CALL again
                                  │ └─begun──► ARGUMENTS ──their end──► CLOSING
                                  └──no call──► TEXT
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from worker_orcd.chat.argument_text import ArgumentText
from worker_orcd.chat.chat_format import ChatFormat, ToolStyle
from worker_orcd.chat.function_tags import typed_arguments
from worker_orcd.chat.harmony import header_at
from worker_orcd.chat.tool_syntax import SCANS, Begun, Close, Closed, Found, NoCall, Scan, object_alone, of_tool
from worker_orcd.log_entry import ToolCallDelta
from worker_orcd.text.stop_strings import earliest_stop, held_from

EARLY = 256
"""Where more than this is held back of a call, it is looked at again only when something opens or closes."""
_BRACKETS = frozenset("{}])>")


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
    ARGUMENTS = auto()
    CLOSING = auto()


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
        thoughts = chat_format.thoughts
        begins = ((thoughts.opening, _At.THOUGHTS), (thoughts.answer, _At.TEXT)) if chat_format.thinks else ()
        self._begins = [(mark, to) for mark, to in begins if mark]
        self._has_headers = chat_format.has_headers
        self._thoughts_end = {thoughts.closing: _At.START}
        self._tools: Mapping[str, Mapping[str, Any]] = (
            tools if isinstance(tools, Mapping) else {name: {} for name in tools}
        )
        ends = {thoughts.answer_end: _At.START} if chat_format.thinks and thoughts.answer_end else {}
        self._text_end = ends | ({chat_format.tool_opening: _At.CALL} if tools and chat_format.tool_opening else {})
        """The marks that end text, and where they lead."""
        self._scan = object_alone if must_call else SCANS.get(chat_format.tools, object_alone)
        self._takes_bare_calls = bool(tools) and chat_format.tools is ToolStyle.LLAMA3
        self._call_id = call_id
        self._must_call = must_call
        self._at = _At.THOUGHTS if thinking else _At.START
        self._after_mark = thinking
        self._mark = ""
        """The opening of the call that is being read; empty for one without."""
        self._is_bare = False
        """The call has no opening, so that only tools that were offered count."""
        self._scan_now = self._scan
        self._arguments = ArgumentText()
        self._close: Close = _never
        self._pending = ""
        self._old = 0
        """How many characters of `_pending`, its first, were said before the answer."""
        self._old_of_mark = 0
        """The same of `_mark`."""
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
        if self._at is _At.CALL and self._is_bare:  # what has begun as an object goes on as one, and not as a call
            self._take_back()
            self._advance(is_whole=False)
        self._old = len(self._pending)
        self._contents.clear()
        self.calls = 0
        return self._at not in (_At.CALL, _At.ARGUMENTS, _At.CLOSING)

    def read(self, text: str) -> list[Content] | None:
        """Takes the next piece; what is known since the last answer, or None if part of that is held back."""
        self._pending += text
        is_held = self._at in (_At.CALL, _At.CLOSING) and len(self._pending) > EARLY
        if not is_held or not _BRACKETS.isdisjoint(text):
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
        if self._after_mark:
            begun = self._pending.lstrip()
            self._old = max(0, self._old - (len(self._pending) - len(begun)))
            self._pending = begun
            self._after_mark = not begun
        match self._at:
            case _At.START:
                return self._begin(is_whole)
            case _At.TEXT:
                return self._read_until(self._text_end)
            case _At.THOUGHTS:
                return self._read_until(self._thoughts_end)
            case _At.CALL:
                return self._read_call(is_whole)
            case _At.ARGUMENTS:
                return self._read_arguments()
            case _At.CLOSING:
                return self._read_closing(is_whole)

    def _begin(self, is_whole: bool) -> bool:
        begun = self._pending.lstrip(" \t\r\n;," if self.calls and self._takes_bare_calls else None)
        if not begun:
            return False
        if self._has_headers:
            followed = self._follow_header(begun, is_whole)
            if followed is not None:
                return followed
        for mark, to in self._begins:
            if begun.startswith(mark):
                return self._go_to_answer(begun[len(mark) :]) if to is _At.TEXT else self._go(to, begun[len(mark) :])
        if self._takes_bare_calls and begun.startswith("{"):
            return self._go_to_call(begun)
        if not is_whole and any(mark.startswith(begun) for mark, _ in self._begins):
            return False
        return self._go_to_answer(begun if self._must_call else self._pending)

    def _follow_header(self, begun: str, is_whole: bool) -> bool | None:
        """What the header of a message leads to; None if there is none that leads anywhere."""
        header = header_at(begun, is_whole)
        if header is None:
            return False
        rest = begun[header.end :]
        if header.is_thought:
            return self._go(_At.THOUGHTS, rest)
        if header.is_said:
            return self._go_to_answer(rest)
        if header.tool and self._tools:
            return self._go_to_call(rest, begun[: header.end], of_tool(header.tool))
        return None

    def _go_to_answer(self, pending: str) -> bool:
        return self._go_to_call(pending) if self._must_call and not self.calls else self._go(_At.TEXT, pending)

    def _go_to_call(self, pending: str, mark: str = "", scan: Scan | None = None, *, again: bool = False) -> bool:
        self._mark, self._is_bare, self._scan_now = mark, not mark and not again, scan or self._scan
        before_mark = len(self._pending) - len(pending) - len(mark)
        self._old_of_mark = min(max(0, self._old - before_mark), len(mark))
        return self._go(_At.CALL, pending)

    def _read_until(self, marks: Mapping[str, _At]) -> bool:
        if not marks:
            self._say(self._pending)
            self._pending = ""
            return False
        found, at = earliest_stop(self._pending, tuple(marks))
        if found:
            self._say(self._pending[:at])
            self._pending = self._pending[at:]
            rest = self._pending[len(found) :]
            return self._go_to_call(rest, found) if marks[found] is _At.CALL else self._go(marks[found], rest)
        held = held_from(self._pending, tuple(marks))
        self._say(self._pending[:held])
        self._pending = self._pending[held:]
        return False

    def _read_call(self, is_whole: bool) -> bool:
        found = self._scan_now(self._pending, is_whole, self._tools)
        if found is None:
            return False
        if isinstance(found, NoCall):
            return self._take_back()
        if isinstance(found, Begun):
            self._add_call(found.name, "")
            self._arguments = ArgumentText()
            self._close = found.close
            return self._go(_At.ARGUMENTS, self._pending[found.at :])
        if self._is_bare and found.call.name not in self._tools:
            return self._take_back()
        self._add_call(found.call.name, self._whole_arguments(found))
        self._close = found.close
        return self._go(_At.CLOSING, self._pending[found.end :])

    def _whole_arguments(self, found: Found) -> str:
        call = found.call
        return call.arguments if call.texts is None else typed_arguments(call.texts, self._tools.get(call.name, {}))

    def _read_arguments(self) -> bool:
        seen, end, has_ended = self._arguments.read(self._pending)
        self._add_arguments(seen)
        self._pending = self._pending[end:]
        return has_ended and self._go(_At.CLOSING, self._pending)

    def _read_closing(self, is_whole: bool) -> bool:
        closed: Closed | None = self._close(self._pending, is_whole)
        if closed is None:
            return False
        if closed.again is None:
            return self._go(_At.START, self._pending[closed.end :])
        mark = self._pending[closed.end : closed.mark_end]
        return self._go_to_call(self._pending[closed.mark_end :], mark, closed.again, again=True)

    def _take_back(self) -> bool:
        """It is no call: text, from its mark on, or from its first character on where it had none."""
        if self._mark:
            shown, pending = self._mark[self._old_of_mark :], self._pending
        else:
            shown, pending = self._pending[min(self._old, 1) : 1], self._pending[1:]
        self._go(_At.TEXT, pending)
        old, self._old = self._old, 0
        self._say(shown)
        self._old = old
        return True

    def _go(self, to: _At, pending: str) -> bool:
        """`pending` is what follows the mark that led there: what is taken off before it was old first."""
        self._old = max(0, self._old - (len(self._pending) - len(pending)))
        self._after_mark = to in (_At.START, _At.THOUGHTS)
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

    def _add_call(self, name: str, arguments: str) -> None:
        self._contents.append(ToolCallDelta(self.calls, self._call_id(self.calls), name, arguments))
        self.calls += 1

    def _add_arguments(self, text: str) -> None:
        """Of the call that was added last."""
        last = self._contents[-1] if self._contents else None
        if isinstance(last, ToolCallDelta):
            self._contents[-1] = ToolCallDelta(last.index, last.call_id, last.name, last.arguments + text)
        elif text:
            self._contents.append(ToolCallDelta(self.calls - 1, "", "", text))

    def _take(self) -> list[Content]:
        contents, self._contents = self._contents, []
        return contents


def _never(_text: str, _is_whole: bool) -> Closed | None:
    raise AssertionError("a call is closed that was not begun")
