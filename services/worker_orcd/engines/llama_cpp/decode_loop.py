"""The steps of the engine: which sequences are evaluated next, and what comes of it.

Runs on the engine's thread, which alone touches the context. Sequences that decode come first, all of them in
one batch; then one piece of one prompt, so that a long prompt neither stalls the others nor outlasts a
cancel.
"""

import time
from collections import deque

from llorch.errors import Reason
from llorch.logs import get_logger
from worker_orcd.engine_info import EngineStats
from worker_orcd.engines.llama_cpp.batch import Batch
from worker_orcd.engines.llama_cpp.chunk_size import ChunkSize
from worker_orcd.engines.llama_cpp.context import Context, DecodeError
from worker_orcd.engines.llama_cpp.determinism import FixedChunks, calls
from worker_orcd.engines.llama_cpp.draws import draw_seed
from worker_orcd.engines.llama_cpp.model import Model
from worker_orcd.engines.llama_cpp.native import Native
from worker_orcd.engines.llama_cpp.sampler import Sampler
from worker_orcd.engines.llama_cpp.sequence import Sequence, TokensOfChoices, WaitingChoice
from worker_orcd.engines.llama_cpp.shape import BATCH_TOKENS
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.engines.run_output import RunOutput
from worker_orcd.log_entry import FinishReason, RunFailure
from worker_orcd.token_step import TokenStep

_log = get_logger("llama.cpp")


class DecodeLoop:
    """`slots` sequences at once. Every method belongs to the engine's thread; `stats` may be read anywhere.

    Of deterministic runs, each of which takes calls of its own, `most_deterministic` run at once; further ones
    wait, and others pass them.
    """

    def __init__(
        self, native: Native, model: Model, context: Context, slots: int, fixed: FixedChunks, most_deterministic: int
    ) -> None:
        self.stats = EngineStats()
        self._lib = native.lib
        self._model = model
        self._context = context
        self._batch = Batch(native.lib, BATCH_TOKENS)
        self._chunk = ChunkSize(BATCH_TOKENS)
        self._fixed = fixed
        self._most_deterministic = most_deterministic
        self._free_slots = list(range(slots))
        self._runs: dict[str, RunOutput] = {}
        self._waiting: deque[WaitingChoice] = deque()
        self._active: dict[tuple[str, int], Sequence] = {}
        self._steps = 0
        self._generated = 0
        self._prefilled = 0

    @property
    def has_work(self) -> bool:
        return bool(self._runs)

    def add(self, run: EngineRun, output: RunOutput, tokens: TokensOfChoices) -> None:
        """`tokens` has one list per choice: the prompt's and those of the choice's output so far."""
        self._runs[run.attempt_id] = output
        for number, choice in enumerate(output.choices):
            if choice.finish is None:
                self._waiting.append(WaitingChoice(run, output, number, tokens[number]))

    def cancel(self, attempt_id: str, reason: FinishReason) -> None:
        output = self._runs.get(attempt_id)
        if output is not None:
            output.close(reason)

    def step(self) -> list[TokenStep]:
        """One batch of decoding and one piece of a prompt; what both brought.

        Runs that got a slot are told before their prompts are evaluated, which takes its time: in a step of their own.
        """
        if told := self._fill_slots():
            return told
        self._decode()
        self._prefill()
        steps = self._collect()
        self._steps += 1
        self.stats = EngineStats(
            slots_busy=len(self._active),
            steps=self._steps,
            tokens_generated=self._generated,
            tokens_prefilled=self._prefilled,
            kv_used_tokens=sum(sequence.evaluated for sequence in self._active.values()),
        )
        return steps

    def fail_all(self, message: str) -> list[TokenStep]:
        """The engine can't go on: every run ends with a failure."""
        for output in self._runs.values():
            output.fail(RunFailure(Reason.ENGINE_FAILED, message, retryable=True))
        self._waiting.clear()
        return [step for output in self._runs.values() if (step := output.collect()) is not None]

    def close(self) -> None:
        """Frees what sequences hold; before the context."""
        for sequence in self._active.values():
            sequence.sampler.close()
        self._active.clear()

    def _fill_slots(self) -> list[TokenStep]:
        """Gives free slots to the choices that wait; returns the starts of runs of which one is the first."""
        started: list[RunOutput] = []
        while (waiting := self._next_waiting()) is not None:
            run, output = waiting.run, waiting.output
            if not output.started:
                output.start()
                started.append(output)
            slot = self._free_slots.pop(0)
            sampler = Sampler(self._lib, run.spec.sampling)
            sequence = Sequence(slot, run.spec, output, sampler, waiting.tokens, number=waiting.number)
            self._active[run.attempt_id, waiting.number] = sequence
        return [step for output in started if (step := output.collect()) is not None]

    def _next_waiting(self) -> WaitingChoice | None:
        """The first of those who wait that may run now. Those that ended meanwhile wait no more."""
        if not self._free_slots or not self._waiting:
            return None
        deterministic = sum(sequence.deterministic for sequence in self._active.values())
        self._waiting = deque(waiting for waiting in self._waiting if not waiting.ended)
        for at, waiting in enumerate(self._waiting):
            if not waiting.run.spec.deterministic or deterministic < self._most_deterministic:
                del self._waiting[at]
                return waiting
        return None

    def _decode(self) -> None:
        """The next token of every sequence that decodes."""
        decoding = sorted(
            (sequence for sequence in self._active.values() if sequence.decoding and not sequence.ended),
            key=lambda sequence: sequence.slot,
        )
        for together in calls(decoding):
            self._decode_together(together)

    def _decode_together(self, decoding: list[Sequence]) -> None:
        """Slots in ascending order share one pass through the model.

        A token that is replayed is followed by a known one, and none is picked.
        """
        self._batch.fill_step(
            [sequence.tokens[sequence.evaluated] for sequence in decoding],
            [sequence.evaluated for sequence in decoding],
            [sequence.slot for sequence in decoding],
        )
        if not self._evaluate(decoding):
            return
        for row, sequence in enumerate(decoding):
            sequence.evaluated += 1
            if sequence.evaluated == len(sequence.tokens):
                self._pick(sequence, row)

    def _prefill(self) -> None:
        """A piece of the prompt that came first."""
        sequence = next((other for other in self._active.values() if not other.decoding and not other.ended), None)
        if sequence is None:
            return
        begin = sequence.evaluated
        chunk = sequence.tokens[begin : self._end_of_chunk(sequence)]
        is_last = begin + len(chunk) == sequence.prefill_tokens
        self._batch.fill_chunk(chunk, begin, sequence.slot, wants_output=is_last)
        began_at = time.monotonic()
        if not self._evaluate([sequence]):
            return
        self._lib.llama_synchronize(self._context.handle)
        self._chunk.observe(len(chunk), time.monotonic() - began_at)
        self._prefilled += len(chunk)
        sequence.evaluated += len(chunk)
        if is_last:
            twins = self._share_prompt(sequence)
            for other in (sequence, *twins):
                other.decoding = True
                other.output.first_token()
                if other.evaluated == len(other.tokens):
                    self._pick(other, len(chunk) - 1)

    def _share_prompt(self, sequence: Sequence) -> list[Sequence]:
        """The choices of the same run that wait in slots with the same tokens: they get a copy of what was
        evaluated, and pick from the same logits.
        """
        twins = [other for other in self._active.values() if other.is_twin_of(sequence)]
        for other in twins:
            self._context.copy(sequence.slot, other.slot)
            other.evaluated = sequence.evaluated
        return twins

    def _end_of_chunk(self, sequence: Sequence) -> int:
        if sequence.deterministic:
            return self._fixed.end(sequence.evaluated, sequence.prefill_tokens)
        return min(sequence.evaluated + self._chunk.tokens, sequence.prefill_tokens)

    def _evaluate(self, sequences: list[Sequence]) -> bool:
        """Runs the batch; if that fails, those who are in it fail, and the others go on."""
        try:
            self._context.decode(self._batch)
        except DecodeError as error:
            _log.error("decode_failed", code=error.code, sequences=len(sequences))
            for sequence in sequences:
                sequence.output.fail(
                    RunFailure(Reason.ENGINE_FAILED, f"the engine failed with code {error.code}", retryable=True)
                )
            return False
        return True

    def _pick(self, sequence: Sequence, row: int) -> None:
        choice = sequence.choice
        seed = draw_seed(sequence.spec.seed, sequence.number, choice.index)
        token_id = sequence.sampler.pick(self._context.handle, row, seed)
        self._generated += 1
        if token_id in self._model.ends_text and not sequence.spec.ignore_eos:
            choice.close(FinishReason.EOS)
            return
        choice.take(token_id, self._model.pieces[token_id])
        sequence.tokens.append(token_id)

    def _collect(self) -> list[TokenStep]:
        """A slot is free once its choice has ended, whether the run goes on or not."""
        for key in [key for key, sequence in self._active.items() if sequence.ended]:
            self._free(self._active.pop(key))
        steps = [step for output in self._runs.values() if (step := output.collect()) is not None]
        for step in steps:
            if step.end is not None:
                del self._runs[step.attempt_id]
        return steps

    def _free(self, sequence: Sequence) -> None:
        """Low slots are given out first: the fewer gaps between used ones, the larger the shared batches."""
        sequence.sampler.close()
        self._context.forget(sequence.slot)
        self._free_slots.append(sequence.slot)
        self._free_slots.sort()
