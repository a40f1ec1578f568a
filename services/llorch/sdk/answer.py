"""The events of a task, put together to its answer."""

import json
from dataclasses import dataclass, field
from typing import Any

from llorch.sdk.events import ChoiceEnd, End, Event, FinishReason, Placed, PositionLogprobs, Tokens
from llorch.sdk.task_options import Message


@dataclass(frozen=True, slots=True)
class CalledTool:
    """A tool call of the model. `arguments_json` is as the model wrote it."""

    call_id: str
    name: str
    arguments_json: str

    @property
    def arguments(self) -> Any:
        """Parsed. Raises ValueError where the answer ended before they were whole."""
        return json.loads(self.arguments_json or "{}")


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers. `logprobs` has one entry per token where they were asked for."""

    text: str
    reasoning: str
    tool_calls: tuple[CalledTool, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[PositionLogprobs, ...]
    end: ChoiceEnd

    def message(self) -> Message:
        """The answer as a turn of the conversation that goes on. What the model thought aloud is no part of it."""
        said: Message = {"role": "assistant"}
        if self.text or not self.tool_calls:
            said["content"] = self.text
        if self.tool_calls:
            said["tool_calls"] = [
                {"call_id": call.call_id, "name": call.name, "arguments": call.arguments_json}
                for call in self.tool_calls
            ]
        return said


@dataclass(frozen=True, slots=True)
class Answer:
    """`end` has the counts of tokens, the times and the receipt; `placed` is where the last attempt ran."""

    task_id: str
    choices: tuple[Choice, ...]
    end: End
    placed: Placed | None

    @property
    def text(self) -> str:
        """Of the first choice, as are the others below."""
        return self.choices[0].text if self.choices else ""

    @property
    def reasoning(self) -> str:
        return self.choices[0].reasoning if self.choices else ""

    @property
    def tool_calls(self) -> tuple[CalledTool, ...]:
        return self.choices[0].tool_calls if self.choices else ()

    @property
    def finish_reason(self) -> FinishReason:
        return self.end.finish_reason


class AnswerParts:
    """Takes the events in their order."""

    def __init__(self) -> None:
        self._choices: dict[int, _ChoiceParts] = {}
        self._placed: Placed | None = None
        self._end: End | None = None

    def add(self, event: Event) -> None:
        match event:
            case Placed():
                self._placed = event
            case Tokens(choice=choice):
                self._choices.setdefault(choice, _ChoiceParts()).add(event)
            case End():
                self._end = event

    def whole(self) -> Answer:
        """Raises RuntimeError where the end was not among the events."""
        if self._end is None:
            raise RuntimeError("this stream was read to its end before; `stream(task_id)` reads the task again")
        choices = (self._choices.get(end.choice, _ChoiceParts()).whole(end) for end in self._end.choices)
        return Answer(self._end.task_id, tuple(choices), self._end, self._placed)


@dataclass(slots=True)
class _ChoiceParts:
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: "dict[int, _CallParts]" = field(default_factory=dict)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[PositionLogprobs] = field(default_factory=list)

    def add(self, tokens: Tokens) -> None:
        self.texts.append(tokens.text)
        self.thoughts.append(tokens.reasoning)
        self.token_ids += tokens.token_ids
        self.logprobs += tokens.logprobs
        if piece := tokens.tool_call:
            call = self.calls.setdefault(piece.index, _CallParts())
            call.call_id = call.call_id or piece.call_id
            call.name = call.name or piece.name
            call.arguments.append(piece.arguments)

    def whole(self, end: ChoiceEnd) -> Choice:
        return Choice(
            text="".join(self.texts),
            reasoning="".join(self.thoughts),
            tool_calls=tuple(
                CalledTool(call.call_id, call.name, "".join(call.arguments)) for _, call in sorted(self.calls.items())
            ),
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs),
            end=end,
        )


@dataclass(slots=True)
class _CallParts:
    call_id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
