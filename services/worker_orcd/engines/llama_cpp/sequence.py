"""A run in a slot."""

from dataclasses import dataclass, field

from worker_orcd.engines.llama_cpp.sampler import Sampler
from worker_orcd.engines.run_output import ChoiceOutput, RunOutput
from worker_orcd.run_spec import RunSpec


@dataclass(slots=True, eq=False)
class Sequence:
    """`tokens` are all ids of the prompt and the output, `evaluated` how many of them the context has seen.

    Until the first `prefill_tokens` of them are evaluated, the sequence is in prefill; it decodes from there on.
    """

    slot: int
    spec: RunSpec
    output: RunOutput
    sampler: Sampler
    tokens: list[int] = field(default_factory=list)
    evaluated: int = 0
    decoding: bool = False

    prefill_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        """A run that resumes evaluates its output so far with its prompt, where that may change bits; where not,
        token by token, as it did at first.
        """
        self.prefill_tokens = self.output.tokens_in if self.deterministic else len(self.tokens)

    @property
    def deterministic(self) -> bool:
        return self.spec.deterministic

    @property
    def choice(self) -> ChoiceOutput:
        return self.output.choices[0]
