"""From an engine's tokens to a run's log entries and its end; the same for every engine. Pure.

An engine feeds the tokens of each choice in order and, once per step, collects what became final.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from llorch.finish_reason import FinishReason
from worker_orcd.chat.answer_reader import Content, Said
from worker_orcd.chat.answers import Answers
from worker_orcd.engine_info import Fingerprint
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.engines.receipt import receipt_writer
from worker_orcd.log_entry import ChoiceEnd, LogEntry, PositionLogprobs, RunEnd, RunFailure, ToolCallDelta
from worker_orcd.run_spec import RunSpec
from worker_orcd.text.output_text import OutputText, Released
from worker_orcd.token_step import TokenStep


@dataclass(frozen=True, slots=True)
class Particulars:
    """What some runs have to tell of a token besides its text. A run has them for every token or for none."""

    logprobs: PositionLogprobs | None = None
    sampler_state: bytes = b""


class ChoiceOutput:
    """One choice. `index` is the output index of the next token, counted over all attempts.

    `room` is how many tokens of output the context has place for, those of earlier attempts included.
    """

    def __init__(self, choice: int, spec: RunSpec, emitted: int, room: int, answers: Answers | None = None) -> None:
        self.index = emitted
        self.finish: FinishReason | None = None
        self.entries: list[LogEntry] = []
        self._choice = choice
        self._first_index = emitted
        self._stops = spec.stop
        self._text = OutputText(spec.stop)
        self._is_plain = not spec.stop and answers is None
        """Nothing looks for anything in the text."""
        self._reader = answers.readers[choice] if answers is not None else None
        self._marks = answers.marks if answers is not None else {}
        self._unread: list[int] = []
        """Tokens that the reader holds back."""
        self._particulars: deque[Particulars] = deque()
        self._stop_string = ""
        self._stop_ids = frozenset(spec.stop_token_ids)
        self._limit, self._limit_reason = room, FinishReason.CONTEXT_FULL
        if spec.max_tokens is not None and spec.max_tokens <= room:
            self._limit, self._limit_reason = spec.max_tokens, FinishReason.LENGTH
        if emitted >= self._limit:
            self.close(self._limit_reason)

    def replay(self, output: Iterable[tuple[int, str | bytes]]) -> None:
        """The tokens of earlier attempts, with their pieces: what a stop string ended stays ended."""
        if not self._stops:
            return
        text = OutputText(self._stops)
        for token_id, piece in output:
            released = text.push(token_id, self._marks.get(token_id, piece))
            if released is not None and released.stop:
                self._stop_string, self.finish = released.stop, FinishReason.STOP_STRING
                return

    def take(self, token_id: int, piece: str | bytes, particulars: Particulars | None = None) -> None:
        """The next token, which does not end the text by itself."""
        if token_id in self._stop_ids:
            self.close(FinishReason.STOP_STRING)
            return
        self.index += 1
        if particulars is not None:
            self._particulars.append(particulars)
        if self._is_plain and isinstance(piece, str) and self._text.is_empty:
            self._add(LogEntry(self._choice, (token_id,), piece))
        else:
            self._take_into_text(token_id, piece)
        if self.index >= self._limit:
            self.close(self._limit_reason)

    def close(self, reason: FinishReason) -> None:
        """No token follows: what was held back is released. Does nothing if the choice has ended."""
        if self.finish is not None:
            return
        released = self._text.flush()
        if released is not None:
            self._append(released)
        self._finish(reason)

    @property
    def tokens_out(self) -> int:
        """Of this attempt."""
        return self.index - self._first_index

    def end(self) -> ChoiceEnd:
        assert self.finish is not None
        return ChoiceEnd(self._choice, self.finish, self.tokens_out, self._stop_string)

    def _take_into_text(self, token_id: int, piece: str | bytes) -> None:
        released = self._text.push(token_id, self._marks.get(token_id, piece))
        if released is None:
            return
        self._append(released)
        if released.stop:
            self._stop_string = released.stop
            self._finish(FinishReason.STOP_STRING)

    def _finish(self, reason: FinishReason) -> None:
        if self._reader is not None:
            self._append_contents(self._reader.flush())
            if reason is FinishReason.EOS and self._reader.calls:
                reason = FinishReason.TOOL_CALLS
        self.finish = reason

    def _append(self, released: Released) -> None:
        if self._reader is None:
            self._add(LogEntry(self._choice, released.token_ids, released.text))
            return
        self._unread += released.token_ids
        contents = self._reader.read(released.text)
        if contents is not None:
            self._append_contents(contents)

    def _append_contents(self, contents: Sequence[Content]) -> None:
        """One entry for each; the first one has the tokens of all, and there is one if there are tokens."""
        if not contents and not self._unread:
            return
        token_ids, self._unread = tuple(self._unread), []
        for content in contents or (Said(""),):
            self._add(_entry(self._choice, token_ids, content))
            token_ids = ()

    def _add(self, entry: LogEntry) -> None:
        if self._particulars and entry.token_ids:
            entry = self._with_particulars(entry)
        self.entries.append(entry)

    def _with_particulars(self, entry: LogEntry) -> LogEntry:
        """Those of the entry's tokens; the state is that after the last of them."""
        particulars = [self._particulars.popleft() for _ in entry.token_ids]
        logprobs = tuple(of_token.logprobs for of_token in particulars if of_token.logprobs is not None)
        return entry._replace(logprobs=logprobs, sampler_state=particulars[-1].sampler_state)


def _entry(choice: int, token_ids: tuple[int, ...], content: Content) -> LogEntry:
    if isinstance(content, ToolCallDelta):
        return LogEntry(choice, token_ids, tool_call=content)
    if content.is_thought:
        return LogEntry(choice, token_ids, reasoning=content.text)
    return LogEntry(choice, token_ids, content.text)


class RunOutput:
    """All choices of one run, its times and its end. `now` is a monotonic clock in seconds; the engine's
    `fingerprint` goes into the receipt of a deterministic run. With `answers`, the model's output is parsed into
    text, thoughts and tool calls; without, it is text.
    """

    def __init__(
        self,
        run: EngineRun,
        tokens_in: int,
        context: int,
        now: Callable[[], float],
        fingerprint: Fingerprint,
        answers: Answers | None = None,
    ) -> None:
        self.attempt_id = run.attempt_id
        self.tokens_in = tokens_in
        self.cached_tokens = 0
        emitted = [0] * run.spec.choices
        for entry in run.prefix:
            emitted[entry.choice] += len(entry.token_ids)
        self.choices = [
            ChoiceOutput(number, run.spec, count, context - tokens_in, answers) for number, count in enumerate(emitted)
        ]
        self._receipt = receipt_writer(run, fingerprint)
        self._failure: RunFailure | None = None
        self._now = now
        self._started_at: float | None = None
        self._start_reported = False
        self._first_token_at: float | None = None

    @property
    def ended(self) -> bool:
        if self._failure is not None:
            return True
        for choice in self.choices:  # noqa: SIM110  asked several times per token: a generator costs more than all else
            if choice.finish is None:
                return False
        return True

    @property
    def failed(self) -> bool:
        return self._failure is not None

    @property
    def started(self) -> bool:
        return self._started_at is not None

    def start(self) -> None:
        """The run got its slot."""
        self._started_at = self._now()

    def first_token(self) -> None:
        """The prompt is evaluated; decoding begins, with the first of the choices."""
        if self._first_token_at is None:
            self._first_token_at = self._now()

    def close(self, reason: FinishReason) -> None:
        for choice in self.choices:
            choice.close(reason)

    def fail(self, failure: RunFailure) -> None:
        self._failure = failure

    def collect(self) -> TokenStep | None:
        """What became final since the last call; None if nothing did."""
        entries: list[LogEntry] = []
        for choice in self.choices:
            if choice.entries:
                entries.extend(choice.entries)
                choice.entries = []
        started = self._started_at is not None and not self._start_reported
        if self._receipt is not None:
            self._receipt.add(entries)
        end = self._end() if self.ended else None
        if not entries and end is None and not started:
            return None
        self._start_reported = self._start_reported or started
        if not started:
            return TokenStep(self.attempt_id, False, tuple(entries), end)
        return TokenStep(self.attempt_id, True, tuple(entries), end, self.tokens_in, self.cached_tokens)

    def _end(self) -> RunEnd:
        now = self._now()
        started_at = self._started_at if self._started_at is not None else now
        first_token_at = self._first_token_at if self._first_token_at is not None else now
        return RunEnd(
            choices=tuple(choice.end() for choice in self.choices if choice.finish is not None),
            failure=self._failure,
            tokens_in=self.tokens_in,
            tokens_out=sum(choice.tokens_out for choice in self.choices),
            cached_tokens=self.cached_tokens,
            prefill_ms=round((first_token_at - started_at) * 1000),
            decode_ms=round((now - first_token_at) * 1000),
            receipt=self._receipt.receipt() if self._receipt is not None and self._failure is None else None,
        )
