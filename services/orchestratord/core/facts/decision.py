"""What was considered, what it would cost, what ruled it out, and what was chosen."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

DECISIONS_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Term:
    """A part of what a place costs, in ms. `is_guess`: nothing like it was ever measured."""

    name: str
    ms: float
    is_guess: bool = False


def total_ms(terms: Iterable[Term]) -> float:
    total = 0.0
    for term in terms:  # summed up for every node of a fleet, where a generator would cost as much as its terms
        total += term.ms
    return total


@dataclass(frozen=True, slots=True)
class Evicted:
    """A worker that would have to leave, and what that frees. `idle_s`: time since it was used."""

    worker_id: str
    model: str
    idle_s: float
    mib: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place that was considered: a worker that is there, or devices on which one would be started.

    `where` is the place for people. `claims_mib` and `tensor_split` are per device. `filtered_by` names the filter that
    removed it, if one did, and `filter_detail` says why.
    """

    node_id: str
    device_ids: tuple[str, ...]
    where: str
    worker_id: str = ""
    claims_mib: tuple[int, ...] = ()
    tensor_split: tuple[float, ...] = ()
    evicted: tuple[Evicted, ...] = ()
    terms: tuple[Term, ...] = ()
    filtered_by: str = ""
    filter_detail: str = ""

    @property
    def evicts(self) -> tuple[str, ...]:
        return tuple(worker.worker_id for worker in self.evicted)

    @property
    def evicts_mib(self) -> int:
        return sum(worker.mib for worker in self.evicted)

    def is_guess(self, name: str) -> bool:
        return any(term.is_guess for term in self.terms if term.name == name)

    def ms(self, *names: str) -> float:
        """The sum of these terms."""
        return total_ms(term for term in self.terms if term.name in names)

    @property
    def score_ms(self) -> float:
        return total_ms(self.terms)


@dataclass(frozen=True, slots=True)
class Largest:
    """What the largest place holds when it is empty, and of how many devices it is; 0 MiB where there is none."""

    mib: int = 0
    devices: int = 1

    def or_larger(self, other: "Largest") -> "Largest":
        """Of two that hold the same, the one of fewer devices."""
        return max(self, other, key=lambda one: (one.mib, -one.devices))


NO_PLACE = Largest()


@dataclass(frozen=True, slots=True)
class Decision:
    """`ranked` best first; empty if nothing is possible now. `waits`: a place becomes possible when workers have left
    that can't leave yet.

    `removed` counts the places by the filter that took them out; `details` has them one by one, if that was asked for.
    `blocked` are some of the places where it would fit if all workers left that may have to. `largest` is the largest
    place that was there but too small: for the message when nothing can. `excluded_by` names the rules that took places
    out, if nothing is left.
    """

    model: str
    ranked: tuple[Candidate, ...] = ()
    removed: Mapping[str, int] = field(default_factory=dict)
    details: tuple[Candidate, ...] = ()
    considered: int = 0
    waits: bool = False
    blocked: tuple[Candidate, ...] = ()
    pinned: bool = False
    fallback_used: bool = False
    largest: Largest = NO_PLACE
    excluded_by: tuple[str, ...] = ()

    @property
    def chosen(self) -> Candidate | None:
        return self.ranked[0] if self.ranked else None

    @property
    def has_usable(self) -> bool:
        """Whether a place was there that could have been used, had it been larger."""
        return self.largest.mib > 0


class Outcome(StrEnum):
    """The values are labels of metrics."""

    CHOSEN = "chosen"
    WAITS = "waits"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a task that was placed asks for, and when it came, in milliseconds since 1970. Tokens are those that were
    expected then: of its prompt, and of all its choices together.
    """

    app: str
    priority: str
    came_at_ms: int
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A decision as it is kept. `task_id` is empty for a load that no single task asked for.

    `candidates` are the best, then some of those that were removed; `removed` counts all of these by filter. If the
    outcome is CHOSEN, it is the first. `at_ms` is in milliseconds since 1970. `why` says of what was not placed what it
    waits for, or why it is refused; empty where it waits for room.
    """

    decision_id: str
    model: str
    outcome: Outcome
    at_ms: int
    task_id: str = ""
    candidates: tuple[Candidate, ...] = ()
    removed: Mapping[str, int] = field(default_factory=dict)
    considered: int = 0
    pinned: bool = False
    fallback_used: bool = False
    why: str = ""
    asked: Asked | None = None

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
