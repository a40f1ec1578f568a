"""The steps of the engine: which sequences are evaluated next, and what comes of it.

Runs on the engine's thread, which alone touches the context. A step is either one token of every sequence that
decodes, all of them in one batch, or a piece of one prompt; whose turn it is, PromptTurns says.
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as SequenceOf

from llorch.errors import Reason
from llorch.finish_reason import FinishReason
from llorch.gguf.memory_estimate import BATCH_TOKENS
from llorch.logs import get_logger
from worker_orcd.constraint.any_constraint import AnyConstraint
from worker_orcd.engine_info import EngineStats
from worker_orcd.engines.llama_cpp.batch import Batch
from worker_orcd.engines.llama_cpp.candidates import Candidates
from worker_orcd.engines.llama_cpp.chunk_size import ChunkSize
from worker_orcd.engines.llama_cpp.context import ABORTED, Context, DecodeError
from worker_orcd.engines.llama_cpp.determinism import FixedChunks, calls
from worker_orcd.engines.llama_cpp.host_cache import HostCache, SavedSequence
from worker_orcd.engines.llama_cpp.model import Model
from worker_orcd.engines.llama_cpp.native import Native
from worker_orcd.engines.llama_cpp.prompt_turns import Piece, PromptTurns
from worker_orcd.engines.llama_cpp.sampler import NothingToPick, Sampler, Workbench
from worker_orcd.engines.llama_cpp.sequence import Sequence, TokensOfChoices, WaitingChoice
from worker_orcd.engines.llama_cpp.session_file import SavedHead
from worker_orcd.engines.llama_cpp.session_files import SessionFiles, Worth
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.engines.llama_cpp.slot_keeper import SlotKeeper
from worker_orcd.engines.llama_cpp.slots import Slots
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.engines.run_output import RunOutput
from worker_orcd.log_entry import RunFailure
from worker_orcd.step_times import StepTimes
from worker_orcd.token_step import TokenStep

_log = get_logger("llama.cpp")


class DecodeLoop:
    """Every method belongs to the engine's thread; `stats` may be read anywhere.

    Of deterministic runs, each of which takes calls of its own, only so many as the shape says run at once;
    further ones wait, and others pass them.
    """

    def __init__(self, native: Native, model: Model, context: Context, shape: LlamaCppShape) -> None:
        self._step_times = StepTimes()
        self._lib = native.lib
        self._model = model
        self._context = context
        self._batch = Batch(native.lib, BATCH_TOKENS)
        fixed = FixedChunks(shape.fixed_chunk)
        chunk = ChunkSize(_largest_piece(context, shape), shape.smallest_piece)
        self._chunk = chunk
        self._turns = PromptTurns(chunk, fixed, shape.decode_gap_s)
        slots = Slots(shape.slots, shape.context_per_slot)
        self._slots = SlotKeeper(context, slots, HostCache(shape.host_cache_bytes, _identity(native, shape)), fixed)
        self._most_deterministic = shape.deterministic_runs
        self._workbench = Workbench(native.lib, model, Candidates(native.lib, model.vocabulary_size))
        self._runs: dict[str, RunOutput] = {}
        self._waiting: deque[WaitingChoice] = deque()
        self._active: dict[tuple[str, int], Sequence] = {}
        self._steps = 0
        self._generated = 0
        self._prefilled = 0
        self._cached = 0

    @property
    def stats(self) -> EngineStats:
        """Every figure is right; a step may come between two of them."""
        return EngineStats(
            slots_busy=len(self._active),
            steps=self._steps,
            tokens_generated=self._generated,
            tokens_prefilled=self._prefilled,
            tokens_cached=self._cached,
            kv_used_tokens=self._slots.held_tokens,
            warm_prefixes=self._slots.warm_prefixes,
            host_cache_bytes=self._slots.host_bytes,
            step_times=self._step_times,
        )

    @property
    def has_work(self) -> bool:
        return bool(self._runs)

    def add(
        self, run: EngineRun, output: RunOutput, tokens: TokensOfChoices, constraints: Iterable[AnyConstraint | None]
    ) -> None:
        """`tokens` has one list per choice: the prompt's and those of the choice's output so far. `constraints`
        are in that state, too.
        """
        self._runs[run.attempt_id] = output
        for number, (choice, constraint) in enumerate(zip(output.choices, constraints, strict=True)):
            if choice.finish is None:
                self._waiting.append(WaitingChoice(run, output, number, tokens[number], constraint))

    def best_gain(self, heads: SequenceOf[SavedHead], choice: WaitingChoice) -> SavedHead | None:
        """As SlotKeeper has it."""
        return self._slots.best_gain(heads, choice)

    def bring_back(self, saved: SavedSequence) -> None:
        """As SlotKeeper has it."""
        self._slots.bring_back(saved)

    def save_sessions(self, keep_s: Mapping[str, float], files: SessionFiles, until: float) -> int:
        """Writes what is idle of these sessions, where that takes less time than evaluating it again; how many
        sequences. Nothing else is done meanwhile.
        """
        return sum(self._save_session(session, kept, files, until) for session, kept in keep_s.items())

    def cancel(self, attempt_id: str, reason: FinishReason) -> None:
        output = self._runs.get(attempt_id)
        if output is not None:
            output.close(reason)

    def step(self) -> list[TokenStep]:
        """One token of every sequence that decodes, or a piece of one prompt; what it brought.

        Runs that got a slot are told before their prompts are evaluated, which takes its time: in a step of their own.
        """
        if told := self._fill_slots():
            return told
        began_at = time.monotonic()
        decoding = [sequence for sequence in self._active.values() if sequence.decoding and not sequence.ended]
        piece = self._turns.next_piece(self._prompts(), others_decode=bool(decoding))
        if piece is not None:
            self._prefill(piece)
        elif decoding:
            self._decode(decoding)
        steps = self._collect()
        self._steps += 1
        self._step_times.observe(time.monotonic() - began_at)
        return steps

    def _save_session(self, session: str, keep_s: float, files: SessionFiles, until: float) -> int:
        def worth(tokens: int) -> Worth:
            return Worth(keep_s, self._chunk.prompt_seconds(tokens), until)

        idle = self._slots.idle_of(session, lambda tokens, size: files.wants(tokens, size, worth(tokens)))
        return sum(files.write(session, sequence, worth(len(sequence.tokens))) for sequence in idle)

    def fail_all(self, message: str) -> list[TokenStep]:
        """The engine can't go on: every run ends with a failure."""
        for output in self._runs.values():
            output.fail(RunFailure(Reason.ENGINE_FAILED, message))
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
            self._active[run.attempt_id, waiting.number] = self._place(waiting)
            if not output.started:
                output.start()
                started.append(output)
        return [step for output in started if (step := output.collect()) is not None]

    def _place(self, waiting: WaitingChoice) -> Sequence:
        """What the slot has of the prompt already is the run's, if this is its first choice."""
        run, output = waiting.run, waiting.output
        slot, reused = self._slots.place(waiting)
        if not output.started:
            output.cached_tokens = min(reused, output.tokens_in)
            self._cached += output.cached_tokens
        sampler = Sampler(self._workbench, run, waiting.number, waiting.tokens, waiting.constraint)
        sequence = Sequence(
            slot, run.attempt_id, run.spec, output, sampler, waiting.tokens, waiting.number, run.session
        )
        sequence.evaluated = reused
        self._slots.take(sequence)
        return sequence

    def _next_waiting(self) -> WaitingChoice | None:
        """The first waiting choice that may run now. Choices that ended meanwhile are dropped."""
        if not self._waiting or not self._slots.any_free:
            return None
        deterministic = sum(sequence.deterministic for sequence in self._active.values())
        self._waiting = deque(waiting for waiting in self._waiting if not waiting.ended)
        for at, waiting in enumerate(self._waiting):
            if not waiting.run.spec.deterministic or deterministic < self._most_deterministic:
                del self._waiting[at]
                return waiting
        return None

    def _decode(self, decoding: list[Sequence]) -> None:
        """The next token of each."""
        decoding.sort(key=lambda sequence: sequence.slot)
        for together in calls(decoding):
            self._decode_together(together)
        self._turns.decoded()

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
        picking = []
        for row, sequence in enumerate(decoding):
            sequence.evaluated += 1
            if sequence.evaluated == len(sequence.tokens):
                picking.append((sequence, row))
        self._pick(picking)

    def _prompts(self) -> list[Sequence]:
        """Those whose prompts are being evaluated; one for all choices of a run that begin with the same tokens."""
        found: list[Sequence] = []
        for sequence in self._active.values():
            if not sequence.decoding and not sequence.ended and not any(map(sequence.is_twin_of, found)):
                found.append(sequence)
        return found

    def _prefill(self, piece: Piece) -> None:
        sequence = piece.sequence
        tokens = sequence.tokens[piece.begin : piece.end]
        self._batch.fill_chunk(tokens, piece.begin, sequence.slot, wants_output=piece.is_last)
        began_at = time.monotonic()
        with self._context.abort_switch.watching(sequence.attempt_id):
            if not self._evaluate([sequence]):
                return
            self._context.wait_computed()
        self._turns.evaluated(piece, time.monotonic() - began_at)
        self._prefilled += len(tokens)
        self._slots.advance(sequence, piece.end)
        if piece.is_last:
            twins = (sequence, *self._share_prompt(sequence))
            for other in twins:
                other.decoding = True
                other.output.first_token()
            self._pick((other, len(tokens) - 1) for other in twins if other.evaluated == len(other.tokens))

    def _share_prompt(self, sequence: Sequence) -> list[Sequence]:
        """The choices of the same run that wait in slots with the same tokens: they get a copy of what was
        evaluated, and pick from the same logits.
        """
        twins = [other for other in self._active.values() if other.is_twin_of(sequence)]
        for other in twins:
            self._slots.copy(sequence, other)
        return twins

    def _evaluate(self, sequences: list[Sequence]) -> bool:
        """Decodes the batch; if that fails, the runs in it fail, and the others go on."""
        try:
            self._context.decode(self._batch)
        except DecodeError as error:
            if error.code == ABORTED:
                for sequence in sequences:
                    self._slots.cut(sequence)
                return False
            _log.error("decode_failed", code=error.code, sequences=len(sequences))
            for sequence in sequences:
                self._slots.forget(sequence)
                sequence.output.fail(RunFailure(Reason.ENGINE_FAILED, f"the engine failed with code {error.code}"))
            return False
        return True

    def _pick(self, picking: Iterable[tuple[Sequence, int]]) -> None:
        """The next token of each, from its row of the last batch. All are picked before the first is looked at: what
        picking streams through the processor's caches would else make everything between slow.
        """
        picked = []
        for sequence, row in picking:
            try:
                picked.append((sequence, row, sequence.sampler.pick(self._context.handle, row, sequence.choice.index)))
            except NothingToPick as error:
                sequence.output.fail(RunFailure(error.reason, str(error)))
        for sequence, row, token_id in picked:
            self._take(sequence, row, token_id)

    def _take(self, sequence: Sequence, row: int, token_id: int) -> None:
        choice = sequence.choice
        sampler = sequence.sampler
        self._generated += 1
        if token_id in self._model.ends_text and (sampler.is_constrained or not sequence.spec.ignore_eos):
            choice.close(FinishReason.EOS)
            return
        particulars = sampler.particulars(self._context.handle, row, token_id)
        choice.take(token_id, self._model.pieces[token_id], particulars)
        sequence.tokens.append(token_id)
        sampler.prepare(choice.index)
        if sampler.output_is_complete:
            choice.close(FinishReason.EOS)

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
        """Its tokens stay in the slot, for a later run that continues them."""
        sequence.sampler.close()
        self._slots.release(sequence)


def _largest_piece(context: Context, shape: LlamaCppShape) -> int:
    """Tokens of a prompt in one call of `llama_decode`. Where layers have a window, no more than are computed at once:
    of several computations the library places the last one first, to see whether all fit, and may forget what the first
    one has to attend to, when the sequence was cut before and its cells are not in order.
    """
    return shape.compute_tokens if context.kind.window else BATCH_TOKENS


def _identity(native: Native, shape: LlamaCppShape) -> str:
    """What a saved sequence belongs to."""
    size = shape.model_path.stat().st_size
    return f"{shape.model} {size} {native.version} {shape.cache_type_k} {shape.cache_type_v}"
