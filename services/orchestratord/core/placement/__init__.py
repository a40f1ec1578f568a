"""Where a model is loaded: candidates, filters, one order. It reads the fleet and the ledger and changes nothing."""

from collections.abc import Callable
from dataclasses import dataclass

from orchestratord.core.fleet import Device, Fleet, Node
from orchestratord.core.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device that the model could be loaded on. Memory in MiB; `evicts` are idle workers that would have to leave."""

    node: Node
    device: Device
    available_mib: int
    capacity_mib: int
    evicts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Removed:
    """A candidate that a filter took out, and why."""

    candidate: Candidate
    filtered_by: str
    detail: str


@dataclass(frozen=True, slots=True)
class Decision:
    """`ranked` best first; empty if nothing is possible now. `waits` = it would fit if busy workers were gone."""

    ranked: tuple[Candidate, ...]
    removed: tuple[Removed, ...]
    waits: bool = False

    @property
    def chosen(self) -> Candidate | None:
        return self.ranked[0] if self.ranked else None

    @property
    def has_usable(self) -> bool:
        """Whether a device was there that could have been used, had it been larger."""
        return any(removed.candidate.device.usable for removed in self.removed)

    @property
    def largest_mib(self) -> int:
        """The most that any usable device could hold; for the message when nothing can."""
        return max((removed.candidate.capacity_mib for removed in self.removed), default=0)


Filter = Callable[[Candidate, int], str | None]
"""Gets a candidate and the memory needed in MiB; answers why the candidate is out, or None."""


def _device_is_usable(candidate: Candidate, _: int) -> str | None:
    return None if candidate.device.usable else f"{candidate.device.name} does not answer or was released"


def _fits_when_empty(candidate: Candidate, needed_mib: int) -> str | None:
    if needed_mib <= candidate.capacity_mib:
        return None
    return f"needs {needed_mib} MiB, {candidate.device.name} has {candidate.capacity_mib} MiB when empty"


FILTERS: tuple[tuple[str, Filter], ...] = (
    ("device_usable", _device_is_usable),
    ("fits_when_empty", _fits_when_empty),
)


def place(fleet: Fleet, ledger: Ledger, needed_mib: int, excluded_nodes: frozenset[str] = frozenset()) -> Decision:
    """Decide where `needed_mib` of memory go. Devices without eviction first, then the emptiest, then by name."""
    kept: list[Candidate] = []
    removed: list[Removed] = []
    for candidate in _candidates(fleet, ledger, excluded_nodes):
        if verdict := _first_verdict(candidate, needed_mib):
            removed.append(Removed(candidate, *verdict))
        else:
            kept.append(candidate)
    possible = [made for candidate in kept if (made := _make_room(candidate, fleet, ledger, needed_mib))]
    return Decision(tuple(sorted(possible, key=_order)), tuple(removed), waits=bool(kept) and not possible)


def _candidates(fleet: Fleet, ledger: Ledger, excluded_nodes: frozenset[str]) -> list[Candidate]:
    return [
        Candidate(
            node,
            device,
            ledger.available((node.node_id, device.device_id)),
            ledger.capacity((node.node_id, device.device_id)),
        )
        for node in fleet.ready_nodes()
        if node.node_id not in excluded_nodes
        for device in node.devices.values()
    ]


def _first_verdict(candidate: Candidate, needed_mib: int) -> tuple[str, str] | None:
    for name, judge in FILTERS:
        if detail := judge(candidate, needed_mib):
            return name, detail
    return None


def _make_room(candidate: Candidate, fleet: Fleet, ledger: Ledger, needed_mib: int) -> Candidate | None:
    """The candidate with the idle workers that have to leave, least recently used first; None if that is not enough."""
    if needed_mib <= candidate.available_mib:
        return candidate
    key = (candidate.node.node_id, candidate.device.device_id)
    holders = [fleet.workers[load_id] for load_id in ledger.loads_on(key) if load_id in fleet.workers]
    idle = sorted((w for w in holders if w.is_idle), key=lambda w: (w.last_used_at, w.worker_id))
    room, evicts = candidate.available_mib, []
    for worker in idle:
        room += ledger.held_by(worker.worker_id, key)
        evicts.append(worker.worker_id)
        if room >= needed_mib:
            return Candidate(
                candidate.node,
                candidate.device,
                candidate.available_mib,
                candidate.capacity_mib,
                tuple(evicts),
            )
    return None


def _order(candidate: Candidate) -> tuple[int, int, str, str]:
    return len(candidate.evicts), -candidate.available_mib, candidate.node.node_id, candidate.device.device_id
