"""From a request to the token ids that are evaluated. Runs beside the event loop; touches no context."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llorch.clock import Clock
from llorch.errors import InvalidArgument, Reason, invalid_field
from worker_orcd.chat.answers import Answers, answers_of, mark_tokens
from worker_orcd.chat.chat_format import ChatFormat, ToolStyle, format_of
from worker_orcd.engines.llama_cpp.chat_template import ChatTemplate
from worker_orcd.engines.llama_cpp.determinism import TEMPLATE_DATE
from worker_orcd.engines.llama_cpp.masking import Masking, Part
from worker_orcd.engines.llama_cpp.model import Model
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.run_spec import RunSpec


class Prepared(NamedTuple):
    """`tokens` are the prompt's, `replayed` those of each choice's output so far; `answers` reads what follows."""

    tokens: list[int]
    replayed: list[list[int]]
    answers: Answers | None


@dataclass(frozen=True, slots=True, eq=False)
class _Chat:
    """A template of the model, its format, and the tokens that are marks in it."""

    template: ChatTemplate
    format: ChatFormat
    marks: Mapping[int, str]


class PromptBuilder:
    """Has a process for each template of the model, from `open` to `close`."""

    def __init__(self, model: Model, context_per_slot: int, clock: Clock) -> None:
        self._model = model
        self._context = context_per_slot
        self._clock = clock
        self._plain = self._chat(model.chat_template) if model.chat_template else None
        self._with_tools = self._chat(model.tool_template) if model.tool_template else self._plain

    @property
    def has_template(self) -> bool:
        return self._plain is not None

    @property
    def has_tools(self) -> bool:
        """Whether the model's template has tool calls, in a format that is known here."""
        return self._with_tools is not None and self._with_tools.format.tools is not ToolStyle.NONE

    @property
    def _chats(self) -> set[_Chat]:
        return {chat for chat in (self._plain, self._with_tools) if chat is not None}

    def open(self) -> None:
        for chat in self._chats:
            chat.template.open()

    def close(self) -> None:
        for chat in self._chats:
            chat.template.close()

    def prepare(self, run: EngineRun) -> Prepared:
        """Refuses what does not fit and what is no token."""
        replayed: list[list[int]] = [[] for _ in range(run.spec.choices)]
        for entry in run.prefix:
            replayed[entry.choice] += entry.token_ids
            self._check_ids("prefix", entry.token_ids)
        self._check_ids("generate.stop_token_ids", sorted(run.spec.stop_token_ids))
        parts = self._parts(run.spec)
        self._refuse_far_too_long(parts)
        prompt = self._tokenize(parts)
        if not prompt:
            raise invalid_field("generate.prompt", "has no tokens")
        longest = len(prompt) + max(len(output_so_far) for output_so_far in replayed)
        if len(prompt) >= self._context or longest > self._context:
            raise self._too_long(str(longest))
        return Prepared(prompt, replayed, self._answers(run.spec, parts, replayed))

    def count(self, spec: RunSpec) -> int:
        """Tokens of the prompt of a run, also where they are more than fit."""
        return len(self._tokenize(self._parts(spec)))

    def tokenize(self, text: str, *, control_tokens: bool, add_special: bool) -> list[int]:
        """Of a text as a plain prompt; without `add_special` it has nothing before it."""
        parts = [Part(text, literal=not control_tokens)]
        ids = self._tokenize(parts)
        return ids if add_special else ids[len(self._beginning(parts)) :]

    def _answers(self, spec: RunSpec, parts: Sequence[Part], replayed: Sequence[Sequence[int]]) -> Answers | None:
        chat = self._chat_of(spec)
        if chat is None or not spec.messages:
            return None
        texts = [self._text(token_ids, chat.marks) for token_ids in replayed]
        return answers_of(spec, chat.format, "".join(part.text for part in parts), chat.marks, texts)

    def _chat(self, template: str) -> _Chat:
        masking = Masking(self._model.special_texts)
        chat_format = format_of(template)
        return _Chat(
            ChatTemplate(template, self._model.bos_text, self._model.eos_text, masking, self._clock),
            chat_format,
            mark_tokens(chat_format.marks, self._tokenize_mark, self._model.pieces),
        )

    def _chat_of(self, spec: RunSpec) -> _Chat | None:
        return self._with_tools if spec.offered_tools else self._plain

    def _text(self, token_ids: Sequence[int], marks: Mapping[int, str]) -> str:
        pieces = (marks.get(token_id, self._model.pieces[token_id]) for token_id in token_ids)
        return b"".join(piece.encode() if isinstance(piece, str) else piece for piece in pieces).decode(
            errors="replace"
        )

    def _tokenize_mark(self, mark: str) -> list[int]:
        return self._model.tokenize(mark, parse_special=True)

    def _parts(self, spec: RunSpec) -> list[Part]:
        if not spec.messages:
            return [Part(spec.prompt, literal=not spec.control_tokens)]
        chat = self._chat_of(spec)
        if chat is None:
            raise InvalidArgument(
                Reason.UNSUPPORTED_OPTION,
                "generate.chat: this model has no chat template; send a plain prompt",
                metadata={"field": "generate.chat"},
            )
        now = TEMPLATE_DATE if spec.deterministic else None
        return chat.template.render(
            spec.messages, spec.template_values, spec.offered_tools, now, continues=spec.continue_last_message
        )

    def _tokenize(self, parts: Sequence[Part]) -> list[int]:
        return self._beginning(parts) + self._model.tokenize_parts(parts)

    def _beginning(self, parts: Sequence[Part]) -> list[int]:
        """The token that begins a text, where the model wants it and the template has not written it itself."""
        first = parts[0] if parts else Part("", literal=True)
        writes_bos = not first.literal and first.text.startswith(self._model.bos_text)
        return [self._model.bos_id] if self._model.adds_bos and not writes_bos else []

    def _refuse_far_too_long(self, parts: Sequence[Part]) -> None:
        """Before ten megabytes are tokenized for nothing: no token is longer than the longest piece."""
        least = sum(len(part.text.encode()) for part in parts) // self._model.longest_piece_bytes
        if least >= self._context:
            raise self._too_long(f"at least {least}")

    def _too_long(self, tokens: str) -> InvalidArgument:
        return InvalidArgument(
            Reason.PROMPT_TOO_LONG, f"the prompt has {tokens} tokens, and the context holds {self._context}"
        )

    def _check_ids(self, field: str, token_ids: Sequence[int]) -> None:
        for token_id in token_ids:
            if token_id >= self._model.vocabulary_size:
                raise invalid_field(
                    field, f"has the token id {token_id}; this model has {self._model.vocabulary_size} tokens"
                )
