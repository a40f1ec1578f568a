"""A choice of a run, waiting or in a slot. A run has as many of these as it has choices, each on its own."""

from dataclasses import dataclass, field

from worker_orcd.constraint.any_constraint import AnyConstraint
from worker_orcd.engines.llama_cpp.sampler import Sampler
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.engines.run_output import ChoiceOutput, RunOutput
from worker_orcd.run_spec import RunSpec

TokensOfChoices = list[list[int]]
"""One list of token ids per choice of a run, in order."""


@dataclass(frozen=True, slots=True, eq=False)
class WaitingChoice:
    """Choice `number` of a run, before it has a slot."""

    run: EngineRun
    output: RunOutput
    number: int
    tokens: list[int]
    constraint: AnyConstraint | None = None

    @property
    def ended(self) -> bool:
        return self.output.ended


@dataclass(slots=True, eq=False)
class Sequence:
    """Choice `number` of a run. `tokens` are all ids of the prompt and the output, `evaluated` how many of them
    the context has seen.

    Until the first `prefill_tokens` of them are evaluated, the sequence is in prefill; it decodes from there on.
    `last_turn` is when a piece of its prompt was evaluated last, in turns of all prompts.
    """

    slot: int
    attempt_id: str
    spec: RunSpec
    output: RunOutput
    sampler: Sampler
    tokens: list[int] = field(default_factory=list)
    number: int = 0
    session: str = ""
    evaluated: int = 0
    decoding: bool = False
    last_turn: int = 0
    prefill_tokens: int = field(init=False)
    choice: ChoiceOutput = field(init=False)
    deterministic: bool = field(init=False)

    def __post_init__(self) -> None:
        """A run that resumes evaluates its output so far with its prompt, where that may change bits; where not, token
        by token, as it did at first.
        """
        self.choice = self.output.choices[self.number]
        self.deterministic = self.spec.deterministic
        self.prefill_tokens = self.output.tokens_in if self.deterministic else len(self.tokens)

    @property
    def ended(self) -> bool:
        """The choice has ended, or the run with all of its choices."""
        return self.choice.finish is not None or self.output.failed

    def is_twin_of(self, other: "Sequence") -> bool:
        """Another choice of the same run that still has all of the same tokens before it."""
        return (
            self is not other
            and self.output is other.output
            and not self.decoding
            and not self.ended
            and self.tokens == other.tokens
        )
