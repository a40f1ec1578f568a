"""Picks the next token, in C where that can be."""

from dataclasses import dataclass
from typing import Any

from llorch.errors import Reason
from worker_orcd.constraint.any_constraint import AnyConstraint
from worker_orcd.engines.llama_cpp.candidates import Candidates, Row
from worker_orcd.engines.llama_cpp.constraints import ConstraintFailed
from worker_orcd.engines.llama_cpp.draws import FirstDraws, Purpose, draw_seed
from worker_orcd.engines.llama_cpp.logprobs import position_logprobs
from worker_orcd.engines.llama_cpp.mirostat import Mirostat
from worker_orcd.engines.llama_cpp.model import Model
from worker_orcd.engines.llama_cpp.sampler_chain import lasting_stages, memory_tokens, xtc_stages
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.engines.run_output import Particulars


class NothingToPick(Exception):
    """The options of the run leave no token. The message is for its client."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Workbench:
    """What the samplers of one engine share, one after the other."""

    lib: Any
    model: Model
    candidates: Candidates


class Sampler:
    """The sampler of one choice. `tokens` are the prompt's and those of the output so far: the stages that look
    back see them as if they had been there from the beginning.

    The last stage, the draw, is made anew for every token, with a seed that depends on nothing but the token's
    place. Used by the engine's thread only. `close` frees it, before its context is freed.
    """

    def __init__(
        self,
        bench: Workbench,
        run: EngineRun,
        number: int,
        tokens: list[int],
        constraint: AnyConstraint | None = None,
    ) -> None:
        self._lib = bench.lib
        self._model = bench.model
        self._candidates = bench.candidates
        self._spec = run.spec
        self._sampling = run.spec.sampling
        self._number = number
        self._first_draws = FirstDraws(run.spec.seed, number)
        self._greedy = self._sampling.temperature == 0
        self._constraint = constraint
        self._mirostat = self._new_mirostat(run) if self._sampling.uses_mirostat else None
        self._chain = self._lib.llama_sampler_chain_init(self._lib.llama_sampler_chain_default_params())
        for stage in lasting_stages(self._lib, self._model, self._sampling):
            self._lib.llama_sampler_chain_add(self._chain, stage)
        self._prepared: list[Any] = []
        """Stages for the next draw."""
        self._top = self._likeliest_that_matter()
        self._takes_likeliest = self._greedy and self._top == 1 and constraint is None
        memory = memory_tokens(self._sampling)
        self._looks_back = memory > 0
        for token_id in tokens[-memory:] if memory else ():
            self._lib.llama_sampler_accept(self._chain, token_id)

    def prepare(self, index: int) -> None:
        """For the token at `index`, which comes next: what can be done now does not wait until caches are full of
        something else.
        """
        if self._mirostat is None and not self._prepared:
            self._prepared = self._passing_stages(index, 0)

    def pick(self, context: int, output: int, index: int) -> int:
        """The token at `index` of the choice's output, from row `output` of the last decoded batch.

        Raises NothingToPick.
        """
        row = self._candidates.row(context, output)
        if self._takes_likeliest:
            return int(row.argmax())
        if self._top:
            self._candidates.fill_top(row, self._top)
        else:
            self._candidates.fill(row)
        picked = self._draw(index, 0)
        if self._constraint is not None:
            picked = self._constrained(self._constraint, picked, row, index)
        if picked is None:
            raise NothingToPick(
                Reason.INVALID_FIELD, "logit bias and output constraint together leave no token to pick"
            )
        token_id, probability = picked
        if self._mirostat is not None:
            self._mirostat.observe(probability)
        if self._looks_back:
            self._lib.llama_sampler_accept(self._chain, token_id)
        return token_id

    @property
    def is_constrained(self) -> bool:
        """The output ends where its constraint lets it, and with nothing else."""
        return self._constraint is not None

    @property
    def output_is_complete(self) -> bool:
        """The constraint lets nothing follow."""
        return self._constraint is not None and self._constraint.complete

    def particulars(self, context: int, output: int, token_id: int) -> Particulars | None:
        """What the run's log tells of the token that was picked last."""
        top = self._spec.top_logprobs
        if top is None and self._mirostat is None:
            return None
        logprobs = None
        if top is not None:
            logprobs = position_logprobs(self._candidates.row(context, output), token_id, top, self._model.pieces)
        return Particulars(logprobs, self._mirostat.state if self._mirostat is not None else b"")

    def close(self) -> None:
        for stage in self._prepared:
            self._lib.llama_sampler_free(stage)
        self._lib.llama_sampler_free(self._chain)

    def _likeliest_that_matter(self) -> int:
        """How many, if the first stage leaves the rest out whatever was said before; else 0."""
        sampling = self._sampling
        if sampling.logit_bias or sampling.uses_penalties or sampling.uses_dry or sampling.uses_mirostat:
            return 0
        top = 1 if self._greedy else sampling.top_k
        return top if top <= self._candidates.most_top else 0

    def _constrained(
        self, constraint: AnyConstraint, picked: tuple[int, float] | None, row: Row, index: int
    ) -> tuple[int, float] | None:
        """A token was drawn as if there were no constraint, and that one token is checked, which is cheap; only if
        it is rejected, one is drawn among all that are allowed.
        """
        try:
            if picked is None or not constraint.allows(picked[0]):
                self._candidates.fill(row, only=constraint.allowed())
                picked = self._draw(index, 1)
            if picked is not None and picked[0] not in self._model.ends_text:
                constraint.accept(picked[0])
        except ConstraintFailed as error:
            raise NothingToPick(Reason.INVALID_GRAMMAR, str(error)) from None
        return picked

    def _draw(self, index: int, draw: int) -> tuple[int, float] | None:
        """One of the candidates, and its probability among those that the stages left; nothing remembers it."""
        passing, self._prepared = self._prepared or self._passing_stages(index, draw), []
        self._candidates.apply(self._chain)
        for stage in passing:
            self._candidates.apply(stage)
            self._lib.llama_sampler_free(stage)
        return self._candidates.picked

    def _passing_stages(self, index: int, draw: int) -> list[Any]:
        """What completes the chain for one draw."""
        if self._greedy:
            return []
        again = draw > 0
        seed = draw_seed(self._spec.seed, self._number, index, draw) if again else self._first_draws.seed(index)
        if self._mirostat is not None:
            return [self._mirostat.stage(seed)]
        last = self._lib.llama_sampler_init_dist(seed)
        if not self._sampling.uses_xtc:
            return [last]
        xtc_seed = draw_seed(self._spec.seed, self._number, index, draw, Purpose.XTC)
        return [*xtc_stages(self._lib, self._sampling, xtc_seed), last]

    def _new_mirostat(self, run: EngineRun) -> Mirostat:
        states = [entry.sampler_state for entry in run.prefix if entry.choice == self._number and entry.token_ids]
        return Mirostat(self._lib, self._model.vocabulary_size, self._sampling, states[-1] if states else b"")
