"""What was considered, what it would cost, what ruled it out, and what was chosen."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

DECISIONS_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Term:
    """A part of what a place costs, in ms."""

    name: str
    ms: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place that was considered: a worker that is there, or devices on which one would be started.

    `claims_mib` and `tensor_split` are per device. `evicts` are workers that would have to leave, `evicts_mib` what that
    frees. `filtered_by` names the filter that removed it, if one did, and `filter_detail` says why.
    """

    node_id: str
    device_ids: tuple[str, ...]
    worker_id: str = ""
    claims_mib: tuple[int, ...] = ()
    tensor_split: tuple[float, ...] = ()
    evicts: tuple[str, ...] = ()
    evicts_mib: int = 0
    terms: tuple[Term, ...] = ()
    filtered_by: str = ""
    filter_detail: str = ""

    @property
    def score_ms(self) -> float:
        return sum(term.ms for term in self.terms)


@dataclass(frozen=True, slots=True)
class Decision:
    """`ranked` best first; empty if nothing is possible now. `waits`: it would be, if workers were gone that can't leave
    yet.

    `removed` counts the places by the filter that took them out; `details` has them one by one, if that was asked for.
    `largest_mib` is the most that a place could hold that was there but too small: for the message when nothing can.
    """

    model: str
    ranked: tuple[Candidate, ...] = ()
    removed: Mapping[str, int] = field(default_factory=dict)
    details: tuple[Candidate, ...] = ()
    considered: int = 0
    waits: bool = False
    pinned: bool = False
    fallback_used: bool = False
    largest_mib: int = 0
    pin_labels: tuple[str, ...] = ()

    @property
    def chosen(self) -> Candidate | None:
        return self.ranked[0] if self.ranked else None

    @property
    def has_usable(self) -> bool:
        """Whether a place was there that could have been used, had it been larger."""
        return self.largest_mib > 0


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A decision as it is kept. `candidates` are the best and some of the removed; `removed` counts all of these.

    `chosen` is a position in `candidates`. `outcome`: "chosen", "waits" or "refused"; a label of metrics.
    """

    decision_id: str
    model: str
    outcome: str
    summary: str
    task_id: str = ""
    app: str = ""
    at_ms: int = 0
    candidates: tuple[Candidate, ...] = ()
    chosen: int | None = None
    removed: Mapping[str, int] = field(default_factory=dict)
    considered: int = 0
    pinned: bool = False
    fallback_used: bool = False

    @property
    def record_key(self) -> str:
        return self.decision_id


@dataclass(slots=True)
class Decisions:
    """The last decisions, oldest first."""

    _ring: deque[DecisionRecord] = field(default_factory=lambda: deque(maxlen=DECISIONS_KEPT))

    def add(self, record: DecisionRecord) -> None:
        self._ring.append(record)

    def newest_first(self) -> Iterator[DecisionRecord]:
        return reversed(self._ring)
