"""Which runs there are, the output of each so far, and how long it is kept. Pure; the clock is handed in.

A run's life: admitted → running → ended → gone. What is gone leaves a tombstone, so that a late start can't
revive it. Several facts keep a run alive or end it:

- no reader attached for `detach_grace` while it runs: it is cancelled;
- ended and not released for `result_retention`: it is dropped;
- released while it runs: it is cancelled, and dropped when the engine has let go of its slot.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from llorch.clock import Clock
from llorch.errors import AlreadyExists, FailedPrecondition, Reason, ResourceExhausted
from llorch.run_times import KEPT_FOR_S
from worker_orcd.log_entry import LogEntry, RunEnd
from worker_orcd.task_attempt import NOTHING, Keepsake
from worker_orcd.token_step import TokenStep


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long things are kept, in seconds."""

    detach_grace_s: float = KEPT_FOR_S
    result_retention_s: float = 600.0
    tombstone_s: float = 600.0
    gone_s: float = 60.0
    """As long as a start that was answered can come once more: its call has a deadline of 5 s."""


MOST_TOMBSTONES = 10_000
"""Of each kind, the last ones: far more than a worker begins runs in the time in which a start can be late."""


class _Tombstones:
    """Ids of which no start is taken any more, each for a while."""

    def __init__(self, clock: Clock, kept_s: float) -> None:
        self._clock = clock
        self._kept_s = kept_s
        self._until: dict[str, float] = {}
        """When each is forgotten, in that order."""

    def __contains__(self, attempt_id: str) -> bool:
        return attempt_id in self._until

    def __len__(self) -> int:
        return len(self._until)

    def add(self, attempt_id: str) -> None:
        self._until.pop(attempt_id, None)
        self._until[attempt_id] = self._clock.monotonic() + self._kept_s
        if len(self._until) > MOST_TOMBSTONES:
            del self._until[next(iter(self._until))]

    def forget_old(self) -> None:
        now = self._clock.monotonic()
        while self._until and self._until[oldest := next(iter(self._until))] <= now:
            del self._until[oldest]


class CancelOutcome(Enum):
    CANCELLED = auto()
    ALREADY_FINISHED = auto()
    UNKNOWN = auto()


@dataclass(slots=True, eq=False)
class Run:
    """One attempt. `fingerprint` stands for its spec: equal specs have equal fingerprints. Its log begins
    with the `prefix_length` entries that it was given, and has had some since `output_at`. `started_after_ms` is None
    until it got its slot.

    A `private` run belongs to the call that started it: it is not shown to the orchestrator, and its own call
    cancels it, so that the detach grace does not apply.
    """

    attempt_id: str
    fingerprint: bytes
    kept: Keepsake
    private: bool
    admitted_at: float
    prefix_length: int
    log: list[LogEntry] = field(default_factory=list)
    output_at: float | None = None
    started_after_ms: int | None = None
    tokens_in: int = 0
    cached_tokens: int = 0
    end: RunEnd | None = None
    ended_at: float = 0.0
    cancelling: bool = False
    released: bool = False


class RunTable:
    """The only owner of runs; all other modules ask it."""

    def __init__(self, clock: Clock, max_admitted: int, keeping: Keeping | None = None) -> None:
        self._clock = clock
        self._max_admitted = max_admitted
        self._keeping = keeping or Keeping()
        self._runs: dict[str, Run] = {}
        self._unfinished = 0
        self._tombstones = _Tombstones(clock, self._keeping.tombstone_s)
        """Ids that were never here: a start that was overtaken may be under way for long."""
        self._gone = _Tombstones(clock, self._keeping.gone_s)
        """Ids of runs that were here, so that their start has come."""
        self._detached_at: float | None = clock.monotonic()

    @property
    def unfinished(self) -> int:
        """Runs that hold a slot or wait for one."""
        return self._unfinished

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, attempt_id: str) -> Run | None:
        return self._runs.get(attempt_id)

    @property
    def now(self) -> float:
        """On the clock of its runs' times."""
        return self._clock.monotonic()

    def shown(self) -> Iterator[Run]:
        """The runs that the orchestrator may see, oldest first."""
        return (run for run in self._runs.values() if not run.private and not run.released)

    def unfinished_runs(self) -> list[Run]:
        return [run for run in self._runs.values() if run.end is None]

    def find_same(self, attempt_id: str, fingerprint: bytes) -> Run | None:
        """The run of an id that came again; None if the id is new. Refuses another spec, and ids that are
        gone.
        """
        self._forget_tombstones()
        if attempt_id in self._tombstones or attempt_id in self._gone:
            raise FailedPrecondition(
                Reason.ATTEMPT_RELEASED,
                f"attempt {attempt_id} was cancelled or released before this start came",
            )
        run = self._runs.get(attempt_id)
        if run is None:
            return None
        if run.released:
            raise FailedPrecondition(Reason.ATTEMPT_RELEASED, f"attempt {attempt_id} was released")
        if run.fingerprint != fingerprint:
            raise AlreadyExists(
                Reason.ATTEMPT_EXISTS,
                f"attempt {attempt_id} runs here with another spec; use a new attempt id",
            )
        return run

    def admit(
        self,
        attempt_id: str,
        fingerprint: bytes,
        *,
        kept: Keepsake = NOTHING,
        prefix: Sequence[LogEntry] = (),
        private: bool = False,
    ) -> Run:
        """A new run, after `find_same` said that its id is new. Its log begins with `prefix`."""
        if self._unfinished >= self._max_admitted:
            raise ResourceExhausted(
                Reason.NO_FREE_SLOT,
                f"this worker has {self._unfinished} unfinished runs and takes {self._max_admitted}",
            )
        now = self._clock.monotonic()
        run = Run(attempt_id, fingerprint, kept, private, now, len(prefix), list(prefix), now if prefix else None)
        self._runs[attempt_id] = run
        self._unfinished += 1
        return run

    def withdraw(self, run: Run) -> None:
        """The engine refused it: as if it had never been admitted."""
        if self._runs.pop(run.attempt_id, None) is not None:
            self._unfinished -= 1

    def apply(self, step: TokenStep) -> Run | None:
        """Appends what a step brought; returns the run if it is still of interest to a reader."""
        run = self._runs.get(step.attempt_id)
        if run is None or run.end is not None:
            return None
        if step.started:
            run.started_after_ms = round((self._clock.monotonic() - run.admitted_at) * 1000)
            run.tokens_in, run.cached_tokens = step.tokens_in, step.cached_tokens
        if step.entries and run.output_at is None:
            run.output_at = self._clock.monotonic()
        run.log.extend(step.entries)
        if step.end is not None:
            run.end = step.end
            run.ended_at = self._clock.monotonic()
            self._unfinished -= 1
        if run.released:
            self._drop_if_ended(run)
            return None
        return run

    def cancel(self, attempt_id: str) -> CancelOutcome:
        """Marks a run as being cancelled. The caller tells the engine; the run ends when the engine reports its end."""
        run = self._runs.get(attempt_id)
        if run is None:
            self._tombstones.add(attempt_id)
            return CancelOutcome.UNKNOWN
        if run.end is not None:
            return CancelOutcome.ALREADY_FINISHED
        run.cancelling = True
        return CancelOutcome.CANCELLED

    def release(self, attempt_id: str) -> Run | None:
        """The orchestrator does not need this run any more. Returns it if it still runs: the caller tells the engine to
        cancel it.
        """
        run = self._runs.get(attempt_id)
        if run is None:
            self._tombstones.add(attempt_id)
            return None
        run.released = True
        if self._drop_if_ended(run):
            return None
        run.cancelling = True
        return run

    def attach(self) -> None:
        self._detached_at = None

    def detach(self) -> None:
        self._detached_at = self._clock.monotonic()

    def sweep(self) -> list[Run]:
        """Drops what was kept long enough; returns the runs that had no reader for too long, marked as
        cancelling.
        """
        now = self._clock.monotonic()
        self._forget_tombstones()
        for run in [run for run in self._runs.values() if run.end is not None]:
            if now - run.ended_at >= self._keeping.result_retention_s:
                self._drop(run)
        abandoned = [run for run in self._runs.values() if self._is_abandoned(run, now)]
        for run in abandoned:
            run.cancelling = True
        return abandoned

    def _is_abandoned(self, run: Run, now: float) -> bool:
        if self._detached_at is None or run.private or run.cancelling or run.end is not None:
            return False
        return now - max(self._detached_at, run.admitted_at) >= self._keeping.detach_grace_s

    def _drop_if_ended(self, run: Run) -> bool:
        if run.end is None:
            return False
        self._drop(run)
        return True

    def _drop(self, run: Run) -> None:
        del self._runs[run.attempt_id]
        self._gone.add(run.attempt_id)

    def _forget_tombstones(self) -> None:
        self._tombstones.forget_old()
        self._gone.forget_old()
