"""The llama.cpp engine, as the event loop sees it."""

import asyncio
import time
from collections.abc import Mapping, Sequence

from llorch.clock import Clock, SystemClock
from llorch.device_kind import DeviceKind
from llorch.errors import Internal, Reason, Unavailable
from llorch.finish_reason import FinishReason
from llorch.logs import get_logger
from worker_orcd.chat.answers import Answers
from worker_orcd.constraint.any_constraint import AnyConstraint
from worker_orcd.engine_info import EngineInfo, EngineStats
from worker_orcd.engines.llama_cpp.capabilities import capabilities_of
from worker_orcd.engines.llama_cpp.constraints import ConstraintCompiler
from worker_orcd.engines.llama_cpp.engine_thread import EngineThread, Loaded
from worker_orcd.engines.llama_cpp.prompt import Prepared, PromptBuilder
from worker_orcd.engines.llama_cpp.returning_sessions import ReturningSessions
from worker_orcd.engines.llama_cpp.run_checks import check_sampling
from worker_orcd.engines.llama_cpp.sequence import TokensOfChoices, WaitingChoice
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.engines.llama_cpp.vocabulary import Vocabulary
from worker_orcd.engines.protocol import Embedded, EngineRun, Ranked, StepCallback
from worker_orcd.engines.run_output import RunOutput
from worker_orcd.run_spec import ConstraintKind
from worker_orcd.token_step import TokenStep

CLOSE_S = 10.0
"""A step that takes longer than this is not waited for: the process exits, and the system takes the memory
back.
"""

_log = get_logger("llama.cpp")


class LlamaCppEngine:
    def __init__(self, shape: LlamaCppShape, clock: Clock | None = None) -> None:
        self._shape = shape
        self._clock = clock or SystemClock()
        self._on_steps: StepCallback | None = None
        self._thread: EngineThread | None = None
        self._compiler: ConstraintCompiler | None = None
        self._loaded: Loaded | None = None
        self._prompts: PromptBuilder | None = None
        self._returning: ReturningSessions | None = None
        self._vocabulary: Vocabulary | None = None

    async def load(self) -> None:
        self._thread = EngineThread(self._shape, self._deliver)
        self._thread.start()
        self._loaded = await self._thread.loaded
        self._returning = ReturningSessions(self._thread, self._loaded.sessions)
        self._vocabulary = Vocabulary(self._loaded.model, self._loaded.facts, self._clock)
        self._thread.before_model_closes.append(self._vocabulary.close)
        if self._loaded.facts.generates:
            self._prompts = PromptBuilder(self._loaded.model, self._shape.context_per_slot, self._clock)
            await asyncio.to_thread(self._prompts.open)

    def load_progress(self) -> float | None:
        return None if self._thread is None else self._thread.load_progress

    def deliver_to(self, on_steps: StepCallback) -> None:
        self._on_steps = on_steps

    async def watch(self) -> None:
        await asyncio.shield(self._running.ended)
        raise Internal(Reason.ENGINE_FAILED, "the engine's thread ended")

    def info(self) -> EngineInfo:
        loaded = self._known
        shape = self._shape
        on_cuda = shape.devices.kind is DeviceKind.CUDA
        return EngineInfo(
            engine="llama_cpp",
            engine_version=loaded.version,
            model=shape.model,
            context_per_slot=self._most_tokens,
            slots=shape.slots,
            max_admitted=shape.slots,
            context_trained=loaded.model.context_trained,
            vocabulary_size=loaded.model.vocabulary_size,
            capabilities=capabilities_of(
                loaded.facts,
                deterministic=loaded.deterministic,
                chat=self._prompts is not None and self._prompts.has_template,
                tools=self._prompts is not None and self._prompts.has_tools,
            ),
            fingerprint=loaded.fingerprint,
            cpu=not on_cuda,
            load_ms=loaded.load_ms,
            memory_mib=loaded.memory_mib,
        )

    async def submit(self, run: EngineRun) -> None:
        """Templates and tokenizing take their time with long prompts: beside the event loop."""
        prompt, replayed, answers = await asyncio.to_thread(self._prepare, run)
        fingerprint = self._known.fingerprint
        output = RunOutput(run, len(prompt), self._shape.context_per_slot, time.monotonic, fingerprint, answers)
        tokens = [prompt + output_so_far for output_so_far in replayed]
        constraints = await asyncio.to_thread(self._constraints, run, replayed, answers)
        self._replay(output, replayed, constraints)
        await self._runs.begin(
            WaitingChoice(run, output, 0, tokens[0]),
            lambda decode_loop: decode_loop.add(run, output, tokens, constraints),
        )

    def cancel(self, attempt_id: str, reason: FinishReason = FinishReason.CANCELLED) -> None:
        if self._returning is not None:
            self._returning.begin_now(attempt_id)
        self._running.cancel(attempt_id, reason)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        return await self._known.reading.embed(texts)

    async def rank(self, query: str, documents: Sequence[str]) -> Ranked:
        return await self._known.reading.rank(query, documents)

    def token_reader(self) -> Vocabulary:
        if self._vocabulary is None:
            raise Internal(Reason.INTERNAL, "the engine was used before it was loaded")
        return self._vocabulary

    def stats(self) -> EngineStats:
        return self._running.stats()

    async def save_sessions(self, keep_s: Mapping[str, float], within_s: float) -> None:
        files = self._known.sessions
        if files is None or not keep_s:
            return
        began_at = time.monotonic()
        until = began_at + within_s
        await self._runs.settle(within_s)
        saved = await self._running.ask(lambda decode_loop: decode_loop.save_sessions(keep_s, files, until))
        _log.info("sessions_saved", sequences=saved, took_s=round(time.monotonic() - began_at, 3))

    async def close(self) -> None:
        if self._thread is None:
            return
        self._thread.close()
        done, _ = await asyncio.wait({self._thread.ended}, timeout=CLOSE_S)
        if not done:
            _log.warning("engine_did_not_close", waited_s=CLOSE_S)
        if self._returning is not None:
            await self._returning.settle(CLOSE_S)
        if self._prompts is not None:
            await asyncio.to_thread(self._prompts.close)

    @property
    def _most_tokens(self) -> int:
        """Of one request: what a slot holds, or the longest text that is read as a whole."""
        loaded = self._known
        return self._shape.context_per_slot if loaded.facts.generates else loaded.reading.most_tokens

    @property
    def _running(self) -> EngineThread:
        if self._thread is None:
            raise Internal(Reason.INTERNAL, "the engine was used before it was loaded")
        return self._thread

    @property
    def _runs(self) -> ReturningSessions:
        if self._returning is None:
            raise Internal(Reason.INTERNAL, "the engine was used before it was loaded")
        return self._returning

    @property
    def _known(self) -> Loaded:
        if self._loaded is None:
            raise Internal(Reason.INTERNAL, "the engine was used before it was loaded")
        return self._loaded

    def _prepare(self, run: EngineRun) -> Prepared:
        """The model is not freed while this reads its vocabulary."""
        with self._running.model_lock:
            if self._running.closing.is_set() or self._prompts is None:
                raise Unavailable(Reason.DRAINING, "this worker is shutting down")
            check_sampling(run, self._known.model)
            return self._prompts.prepare(run)

    def _replay(
        self, output: RunOutput, replayed: TokensOfChoices, constraints: Sequence[AnyConstraint | None]
    ) -> None:
        """An answer that had come to its end in an earlier attempt stays there."""
        pieces = self._known.model.pieces
        for choice, token_ids, constraint in zip(output.choices, replayed, constraints, strict=True):
            choice.replay((token_id, pieces[token_id]) for token_id in token_ids)
            if constraint is not None and constraint.complete:
                choice.close(FinishReason.EOS)

    def _constraints(
        self, run: EngineRun, replayed: TokensOfChoices, answers: Answers | None
    ) -> list[AnyConstraint | None]:
        """One per choice, where its output so far has brought it."""
        if run.spec.constraint is None:
            return [None] * run.spec.choices
        if self._compiler is None:
            self._compiler = ConstraintCompiler(self._known.model)
        compiled: AnyConstraint = self._compiler.compile(run.spec.constraint)
        if answers is not None and answers.thinks and run.spec.constraint.kind is ConstraintKind.JSON_SCHEMA:
            compiled = self._compiler.after_thoughts(
                compiled,
                answers.marks,
                thinking=answers.thinking,
                said=answers.before,
                thoughts=answers.thoughts,
            )
        return [compiled.after(output_so_far) for output_so_far in replayed]

    def _deliver(self, steps: Sequence[TokenStep]) -> None:
        if self._on_steps is not None:
            self._on_steps(steps)
