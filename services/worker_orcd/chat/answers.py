"""How the answers of one run are read, decided before its first token. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from llorch.errors import invalid_field
from llorch.options.continuation import FIELD
from worker_orcd.chat.answer_reader import AnswerReader
from worker_orcd.chat.chat_format import ChatFormat
from worker_orcd.chat.thought_marks import THINK, ThoughtMarks
from worker_orcd.run_spec import RunSpec

_CALL_ID_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_CALL_ID_LENGTH = 9
"""Nine letters and digits: templates of Mistral take no other ids back."""


@dataclass(frozen=True, slots=True)
class Answers:
    """One reader per choice. `marks` are tokens that the readers have to see though they have no text. `thinks`:
    thoughts may come before the answer, between the marks of `thoughts`; `thinking`: the prompt has opened them.
    `before` is the message that the answer continues.
    """

    readers: tuple[AnswerReader, ...]
    marks: Mapping[int, str] = field(default_factory=dict)
    thinks: bool = False
    thinking: bool = False
    before: str = ""
    thoughts: ThoughtMarks = THINK


def answers_of(
    spec: RunSpec,
    chat_format: ChatFormat,
    prompt: str,
    marks: Mapping[int, str],
    texts_so_far: Sequence[str],
) -> Answers | None:
    """None where there is nothing to read: the model's text is the answer. `prompt` is what the template has written;
    `texts_so_far` has what each choice said in earlier attempts.
    """
    tools = {tool.name: tool.parameters for tool in spec.offered_tools}
    if not tools:
        chat_format = chat_format.without_tools()
    if not chat_format.marks:
        return None
    before = _of_last_message(prompt, spec) if spec.continue_last_message else ""
    thinking = chat_format.is_thinking(prompt.removesuffix(before))
    readers = tuple(
        AnswerReader(
            chat_format,
            tools=tools,
            thinking=thinking,
            must_call=spec.must_call,
            call_id=_call_ids(spec.call_key, choice),
        )
        for choice in range(spec.choices)
    )
    for reader, text in zip(readers, texts_so_far, strict=True):
        if before and not reader.go_on_after(before):
            raise invalid_field(FIELD, "the last message ends within a tool call; leave out the call, or the tools")
        thinking = reader.in_thoughts if before else thinking
        reader.read(text)
    seen = {token_id: mark for token_id, mark in marks.items() if mark in chat_format.marks}
    thinks = thinking if before else chat_format.thinks
    return Answers(readers, seen, thinks, thinking, before, chat_format.thoughts)


def _of_last_message(prompt: str, spec: RunSpec) -> str:
    """What a prompt that ends with the last message has of it: all, but maybe the white space around it."""
    return prompt[len(prompt.rstrip()) - len(spec.messages[-1].content.strip()) :]


def mark_tokens(
    marks: Iterable[str], tokenize: Callable[[str], Sequence[int]], pieces: Sequence[str | bytes]
) -> dict[int, str]:
    """The marks that are one token without a text of its own in this vocabulary, by token id."""
    found = {}
    for mark in marks:
        ids = tokenize(mark)
        if len(ids) == 1 and not pieces[ids[0]]:
            found[ids[0]] = mark
    return found


def _call_ids(key: str, choice: int) -> Callable[[int], str]:
    """An id is a hash of (key, choice, number of the call): a resumed run gives the ids that it would have given."""

    def call_id(number: int) -> str:
        digest = blake2b(f"{key}/{choice}/{number}".encode(), digest_size=_CALL_ID_LENGTH).digest()
        return "".join(_CALL_ID_CHARACTERS[byte % len(_CALL_ID_CHARACTERS)] for byte in digest)

    return call_id
