"""The simulated engine. One timer of the event loop paces all runs together.

A step that comes late makes up for it by several tokens at once, so that speeds are kept whatever the
resolution of the loop's timers is. Without cost a step brings `BURST` tokens per run, and the loop has its
turn between steps.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llorch.errors import FailedPrecondition, InvalidArgument, Reason
from llorch.finish_reason import FinishReason
from worker_orcd.engine_info import Capabilities, EngineInfo, EngineStats, Fingerprint, ResumeSupport
from worker_orcd.engines.protocol import Embedded, EngineRun, Ranked, StepCallback
from worker_orcd.engines.run_output import RunOutput
from worker_orcd.engines.sim.parameters import Fault, FaultKind, SimParameters
from worker_orcd.engines.sim.token_reader import SimTokenReader, prompt_text
from worker_orcd.engines.sim.tokens import (
    VOCABULARY_SIZE,
    sim_embedding,
    sim_prompt_tokens,
    sim_score,
    sim_token,
    sim_tokens,
)
from worker_orcd.log_entry import RunFailure
from worker_orcd.run_spec import RunSpec
from worker_orcd.token_step import TokenStep

VERSION = "1"
BURST = 32
PREFILL_BEAT_S = 0.2
"""While prompts are evaluated, steps are counted at least this often: an engine that works shows it."""

CAPABILITIES = Capabilities(
    resume=ResumeSupport.EXACT_IDS,
    deterministic=True,
    chat=True,
    generation=True,
    embeddings=True,
    rerank=True,
    multiple_choices=True,
    sampling_options=frozenset({"temperature", "top_k", "top_p", "min_p", "seed"}),
)


@dataclass(frozen=True, slots=True)
class SimShape:
    """What the worker was told to load."""

    model: str
    slots: int
    context_per_slot: int
    devices: int = 1


@dataclass(slots=True, eq=False)
class _SimRun:
    spec: RunSpec
    output: RunOutput
    prefilled_at: float
    faults: list[Fault]
    decoding: bool = False


def _drop(_steps: Sequence[TokenStep]) -> None:
    """Stands in until `deliver_to` is called."""


class SimEngine:
    def __init__(self, parameters: SimParameters, shape: SimShape) -> None:
        self._parameters = parameters
        self._shape = shape
        self._on_steps: StepCallback = _drop
        self._runs: dict[str, _SimRun] = {}
        self._costs = parameters
        """The parameters, or none of them in a rehearsal."""
        self._timer: asyncio.Handle | None = None
        self._next_step_at = 0.0
        self._prefill_free_at = 0.0
        self._hung = False
        self._load_began_at: float | None = None
        self._load_ms = 0
        self._steps = 0
        self._tokens_generated = 0
        self._tokens_prefilled = 0

    async def load(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._load_began_at = self._loop.time()
        await asyncio.sleep(self._parameters.load_s)
        self._load_ms = round(self._parameters.load_s * 1000)
        if self._parameters.fail_load:
            raise FailedPrecondition(Reason.MODEL_LOAD_FAILED, self._parameters.fail_load)

    def load_progress(self) -> float | None:
        if self._load_began_at is None or not self._parameters.load_s:
            return None
        return min(1.0, (self._loop.time() - self._load_began_at) / self._parameters.load_s)

    def deliver_to(self, on_steps: StepCallback) -> None:
        self._on_steps = on_steps

    async def watch(self) -> None:
        await asyncio.Event().wait()

    def info(self) -> EngineInfo:
        return EngineInfo(
            engine="sim",
            engine_version=VERSION,
            model=self._shape.model,
            context_per_slot=self._shape.context_per_slot,
            slots=self._shape.slots,
            max_admitted=self._shape.slots,
            context_trained=self._shape.context_per_slot,
            vocabulary_size=VOCABULARY_SIZE,
            capabilities=CAPABILITIES,
            fingerprint=self._fingerprint(),
            simulated=True,
            load_ms=self._load_ms,
            memory_mib=(self._parameters.vram_mib // self._shape.devices,) * self._shape.devices,
        )

    async def submit(self, run: EngineRun) -> None:
        self._costs = SimParameters() if run.rehearsal else self._parameters
        prompt = prompt_text(run.spec)
        if any(fault.kind is FaultKind.REFUSE and fault.marker in prompt for fault in self._costs.faults):
            raise FailedPrecondition(Reason.ENGINE_FAILED, "the simulated engine refuses this run, as it was told to")
        tokens_in = sim_prompt_tokens(prompt)
        if tokens_in >= self._shape.context_per_slot:
            raise InvalidArgument(
                Reason.PROMPT_TOO_LONG,
                f"the prompt has {tokens_in} tokens, and the context holds {self._shape.context_per_slot}",
            )
        output = RunOutput(run, tokens_in, self._shape.context_per_slot, self._loop.time, self._fingerprint())
        replayed = sum(choice.index for choice in output.choices)
        for number, choice in enumerate(output.choices):
            choice.replay((token.token_id, token.text) for token in sim_tokens(run.spec.seed, number, choice.index))
        output.start()
        faults = [fault for fault in self._costs.faults if fault.marker in prompt]
        self._runs[run.attempt_id] = _SimRun(run.spec, output, self._book_prefill(tokens_in + replayed), faults)
        self._step_now()

    def cancel(self, attempt_id: str, reason: FinishReason = FinishReason.CANCELLED) -> None:
        run = self._runs.get(attempt_id)
        if run is not None and not self._hung:
            run.output.close(reason)
            self._step_now()

    async def embed(self, texts: Sequence[str]) -> Embedded:
        return Embedded([sim_embedding(text) for text in texts], await self._read(texts, "embed.inputs"))

    async def rank(self, query: str, documents: Sequence[str]) -> Ranked:
        pairs = [f"{query} {document}" for document in documents]
        return Ranked(
            [sim_score(query, document) for document in documents], await self._read(pairs, "rerank.documents")
        )

    async def _read(self, texts: Sequence[str], field: str) -> int:
        """At the speed of prompts, one request after the other like those; how many tokens there were."""
        tokens = [sim_prompt_tokens(text) for text in texts]
        for number, count in enumerate(tokens):
            if count > self._shape.context_per_slot:
                raise InvalidArgument(
                    Reason.PROMPT_TOO_LONG,
                    f"{field}[{number}] has {count} tokens, and at most {self._shape.context_per_slot} fit",
                )
        await asyncio.sleep(self._book_prefill(sum(tokens)) - self._loop.time())
        return sum(tokens)

    def token_reader(self) -> SimTokenReader:
        return SimTokenReader(CAPABILITIES, self._shape.context_per_slot)

    def stats(self) -> EngineStats:
        return EngineStats(
            slots_busy=len(self._runs),
            steps=self._steps,
            tokens_generated=self._tokens_generated,
            tokens_prefilled=self._tokens_prefilled,
            kv_used_tokens=sum(
                run.output.tokens_in + sum(choice.index for choice in run.output.choices) for run in self._runs.values()
            ),
        )

    async def save_sessions(self, keep_s: Mapping[str, float], within_s: float) -> None:
        """It keeps nothing of a run for the next one."""

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._runs.clear()

    def _fingerprint(self) -> Fingerprint:
        """Its tokens depend on the seed, its answers' lengths on the context and on `eos_after`; on no card."""
        return Fingerprint(
            engine_version=f"sim {VERSION}",
            build=f"eos_after={self._parameters.eos_after}",
            device_kind="simulated",
            device=self._parameters.device,
            context_per_slot=self._shape.context_per_slot,
        )

    def _book_prefill(self, tokens: int) -> float:
        """When a prompt that comes now is evaluated, after those that came before it."""
        begins_at = max(self._loop.time(), self._prefill_free_at)
        self._prefill_free_at = begins_at + self._costs.prefill_s(tokens)
        self._tokens_prefilled += tokens
        return self._prefill_free_at

    def _step_now(self) -> None:
        """A run came or was cancelled: its start or end is told in the loop's next turn."""
        self._set_timer(self._loop.time())

    def _schedule(self) -> None:
        """Sets the one timer to whatever comes next: a prompt that is done, or a decode step."""
        wake_at = self._loop.time() + PREFILL_BEAT_S
        for run in self._runs.values():
            wake_at = min(wake_at, self._next_step_at if run.decoding else run.prefilled_at)
        self._set_timer(wake_at)

    def _set_timer(self, wake_at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._runs or self._hung:
            return
        if wake_at <= self._loop.time():
            self._timer = self._loop.call_soon(self._step)
        else:
            self._timer = self._loop.call_at(wake_at, self._step)

    def _step(self) -> None:
        self._timer = None
        self._steps += 1
        now = self._loop.time()
        due = self._tokens_due(now)
        for run in self._runs.values():
            if run.output.ended:
                continue
            if run.decoding:
                self._decode(run, due)
            elif now >= run.prefilled_at:
                self._begin_decoding(run, now)
        steps = self._collect()
        self._schedule()
        if steps:
            self._on_steps(steps)

    def _tokens_due(self, now: float) -> int:
        """Tokens that every decoding run has a right to by now."""
        decoding = sum(run.decoding for run in self._runs.values())
        if not decoding or now < self._next_step_at:
            return 0
        step_s = self._costs.step_s(decoding)
        if not step_s:
            return BURST
        due = 1 + int((now - self._next_step_at) / step_s)
        if due > BURST:
            self._next_step_at = now + step_s
            return BURST
        self._next_step_at += due * step_s
        return due

    def _begin_decoding(self, run: _SimRun, now: float) -> None:
        """A prompt's evaluation ends with the first token; a run alone sets the pace from here."""
        step_s = self._costs.step_s(1)
        if not any(other.decoding for other in self._runs.values()):
            self._next_step_at = now + step_s
        run.decoding = True
        run.output.first_token()
        self._decode(run, 1 if step_s else BURST)

    def _decode(self, run: _SimRun, tokens: int) -> None:
        for _ in range(tokens):
            if run.output.ended or (run.faults and self._meet_fault(run)):
                return
            for number, choice in enumerate(run.output.choices):
                if choice.finish is not None:
                    continue
                if choice.index == self._costs.eos_after and not run.spec.ignore_eos:
                    choice.close(FinishReason.EOS)
                    continue
                token = sim_token(run.spec.seed, number, choice.index)
                choice.take(token.token_id, token.text)
                self._tokens_generated += 1

    def _meet_fault(self, run: _SimRun) -> bool:
        """Lets the fault happen that is due at the next token, once per run; True if no token comes in this
        step.
        """
        fault = next((fault for fault in run.faults if fault.at_token == run.output.choices[0].index), None)
        if fault is None:
            return False
        run.faults.remove(fault)
        if fault.kind is FaultKind.ABORT:
            os.abort()
        if fault.kind is FaultKind.EXIT:
            os._exit(fault.exit_code)
        if fault.kind is FaultKind.HANG:
            self._hung = True
        elif fault.kind is FaultKind.SLOW:
            self._next_step_at = self._loop.time() + fault.delay_s
        else:
            run.output.fail(RunFailure(Reason.ENGINE_FAILED, "the simulated engine failed, as it was told to"))
        return True

    def _collect(self) -> list[TokenStep]:
        steps = [step for run in self._runs.values() if (step := run.output.collect()) is not None]
        for step in steps:
            if step.end is not None:
                del self._runs[step.attempt_id]
        return steps
