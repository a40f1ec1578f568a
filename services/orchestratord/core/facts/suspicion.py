"""Which task it is that ends the workers that it runs on. Pure.

Most workers that end by themselves are killed from outside, so the tasks aboard go on at once, and beside each other.
Those under which the next one ends as well, before their output has gone past the point at which the first one did, are
suspects. At most one suspect runs on a worker, until it has gone past that point. So when a worker ends under a lone
suspect, or under a task that was alone aboard, it was most likely that one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

ENDS_AT_MOST = 2
"""Workers that one task may end by itself."""

UNDER_AT_MOST = 2
"""Workers that end under a task with others aboard; from then on it is a suspect."""

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


def worker_ended(aboard: Mapping[str, Suspicion], others: int = 0) -> Verdict:
    """A worker has ended by itself, with these tasks, by their ids. Their suspicions are brought up to date.

    `others`: runs that were aboard as well, of tasks that are over or go on elsewhere. They may be the cause, and are
    no suspects.
    """
    hot = [task_id for task_id, suspicion in aboard.items() if suspicion.is_hot]
    for suspicion in aboard.values():
        suspicion.under += 1
        suspicion.is_hot = suspicion.is_hot or suspicion.under >= UNDER_AT_MOST
    candidates = hot or list(aboard)
    if len(candidates) != 1 or (others and not hot):
        return Verdict()
    suspicion = aboard[candidates[0]]
    suspicion.is_hot, suspicion.ended = True, suspicion.ended + 1
    return Verdict(candidates[0], is_proven=suspicion.ended >= ENDS_AT_MOST and len(aboard) + others == 1)
