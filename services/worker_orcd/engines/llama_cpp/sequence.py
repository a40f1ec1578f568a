"""A run in a slot."""

from dataclasses import dataclass, field

from worker_orcd.engines.llama_cpp.sampler import Sampler
from worker_orcd.engines.run_output import ChoiceOutput, RunOutput
from worker_orcd.run_spec import RunSpec


@dataclass(slots=True, eq=False)
class Sequence:
    """`tokens` are all ids of the prompt and the output, `evaluated` how many of them the context has seen.

    As long as more than the last one is not evaluated, the sequence is in prefill.
    """

    slot: int
    spec: RunSpec
    output: RunOutput
    sampler: Sampler
    tokens: list[int] = field(default_factory=list)
    evaluated: int = 0
    decoding: bool = False

    @property
    def choice(self) -> ChoiceOutput:
        return self.output.choices[0]
