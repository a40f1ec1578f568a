"""Which task it is that ends the workers that it runs on. Pure.

A worker that ends by itself makes every task aboard a suspect. At most one suspect runs on a worker, until its output
has gone past the point at which that worker ended. So when a worker ends under a lone suspect, it was most likely that
one; what was beside it is a suspect only where workers end under it again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

ENDS_AT_MOST = 2
"""Workers that one task may end by itself."""

UNDER_AT_MOST = 2
"""Workers that end under a task while another one is suspected; from then on it is a suspect as well."""

PAST_AFTER_ENTRIES = 4
"""Of output, beyond what had come when the worker ended: that many may have been computed and not told."""


@dataclass(slots=True)
class Suspicion:
    """`under`: how many workers ended under the task, and its output has not gone past that point since; `ended`: how
    many of them with no other suspect aboard. `is_hot`: it is a suspect.
    """

    under: int = 0
    ended: int = 0
    is_hot: bool = False

    @property
    def must_run_alone(self) -> bool:
        """Once more, with nothing beside it, before it is held to be the cause."""
        return self.is_hot and self.ended >= ENDS_AT_MOST

    def is_past(self) -> None:
        """Its output has gone on beyond that point."""
        self.under, self.ended, self.is_hot = 0, 0, False


@dataclass(frozen=True, slots=True)
class Verdict:
    """`culprit`: the task that ended the worker, if there is only one that it can be. `is_proven`: it has ended as many
    as it may, the last with nothing beside it.
    """

    culprit: str = ""
    is_proven: bool = False


def worker_ended(aboard: Mapping[str, Suspicion]) -> Verdict:
    """A worker has ended by itself, with these tasks, by their ids. Their suspicions are brought up to date."""
    for suspicion in aboard.values():
        suspicion.under += 1
    hot = [task_id for task_id, suspicion in aboard.items() if suspicion.is_hot]
    candidates = hot or list(aboard)
    if len(candidates) == 1:
        suspicion = aboard[candidates[0]]
        suspicion.is_hot, suspicion.ended = True, suspicion.ended + 1
        for beside in aboard.values():
            beside.is_hot = beside.is_hot or beside.under >= UNDER_AT_MOST
        return Verdict(candidates[0], is_proven=suspicion.ended >= ENDS_AT_MOST and len(aboard) == 1)
    for suspicion in aboard.values():
        suspicion.is_hot = True
    return Verdict()
