"""The attempts that hold slots, by id, and by model and class."""

from collections import UserDict
from collections.abc import Iterator

from orchestratord.core.facts.attempt import Attempt


class Attempts(UserDict[str, Attempt]):
    def __init__(self) -> None:
        super().__init__()
        self._of_class: dict[tuple[str, str], dict[str, None]] = {}

    def of_class(self, model: str, priority: str) -> Iterator[Attempt]:
        """Those that began last come first. A change invalidates the iteration."""
        return (self.data[attempt_id] for attempt_id in reversed(self._of_class.get((model, priority), {})))

    def __setitem__(self, attempt_id: str, attempt: Attempt) -> None:
        super().__setitem__(attempt_id, attempt)
        self._of_class.setdefault(_key(attempt), {})[attempt_id] = None

    def __delitem__(self, attempt_id: str) -> None:
        key = _key(self.data[attempt_id])
        super().__delitem__(attempt_id)
        del self._of_class[key][attempt_id]
        if not self._of_class[key]:
            del self._of_class[key]


def _key(attempt: Attempt) -> tuple[str, str]:
    return attempt.place.model, attempt.place.priority
