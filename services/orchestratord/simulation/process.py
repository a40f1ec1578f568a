"""A worker process as it really is: memory, slots, runs. The brain knows of it only what is told."""

from dataclasses import dataclass, field

from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core.events import Event
from orchestratord.core.facts.task import RunResult, TaskError
from orchestratord.simulation.task_logs import PARTS, AnswerPart

PREFILL_TIMES_FASTER = 20
BATCH_PENALTY = 0.15
"""How much every further run slows all of them down."""


@dataclass
class SimulatedRun:
    attempt_id: str
    task_id: str
    tokens_in: int
    tokens_out: int
    """Of the whole answer, that of earlier attempts included."""
    begins_at: int = 0
    """How many parts of the answer there were when it was started."""
    said: list[Event | AnswerPart] = field(default_factory=list)
    """Its messages in order: sent again to every orchestrator that attaches."""
    outcome: RunResult | TaskError | None = None
    prefill_s: float = 0.0
    decode_s: float = 0.0

    @property
    def is_active(self) -> bool:
        return self.outcome is None


@dataclass
class Process:
    """`needs_mib` is what it takes of each device once it has begun to load, from its exec to its exit.

    Processes give equal bytes if their `fingerprint` is equal; one without says nothing of its bytes.
    """

    node_id: str
    spec: WorkerSpec
    needs_mib: tuple[int, ...]
    started_at: float
    decode_tokens_per_s: float
    fingerprint: str = ""
    state: WorkerState = WorkerState.STARTING
    is_alive: bool = True
    failure: str = ""
    runs: dict[str, SimulatedRun] = field(default_factory=dict)
    tombstones: set[str] = field(default_factory=set)
    """Attempts that were cancelled or released before they came: they never start."""

    @property
    def worker_id(self) -> str:
        return self.spec.worker_id

    @property
    def active(self) -> int:
        return sum(run.is_active for run in self.runs.values())

    def holds_mib(self, device_id: str) -> int:
        return sum(
            mib
            for held, mib in zip(self.spec.device_ids, self.needs_mib, strict=True)
            if held == device_id and self.is_alive
        )

    def seconds_for(self, run: SimulatedRun) -> tuple[float, float]:
        """To evaluate its prompt, and to decode its answer, in the batch that it meets when it starts."""
        per_token_s = (1 + BATCH_PENALTY * (self.active - 1)) / self.decode_tokens_per_s
        shown = run.tokens_out * run.begins_at // PARTS
        prefill_s = (run.tokens_in + shown) / PREFILL_TIMES_FASTER * per_token_s
        return prefill_s, (run.tokens_out - shown) * per_token_s
