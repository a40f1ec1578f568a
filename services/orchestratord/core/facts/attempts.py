"""The attempts that hold slots, by id, and by model and class."""

from collections import UserDict
from collections.abc import Hashable, Iterator

from orchestratord.core.facts.attempt import Attempt


class Attempts(UserDict[str, Attempt]):
    def __init__(self) -> None:
        super().__init__()
        self._of_class: dict[tuple[str, str], dict[str, None]] = {}
        self._giving_way: dict[str, set[str]] = {}

    def of_class(self, model: str, priority: str) -> Iterator[Attempt]:
        """Those that began last come first. A change invalidates the iteration."""
        return (self.data[attempt_id] for attempt_id in reversed(self._of_class.get((model, priority), {})))

    def give_way(self, attempt: Attempt, priority: str, lane: Hashable) -> None:
        attempt.gives_way = priority, lane
        self._giving_way.setdefault(attempt.place.model, set()).add(attempt.attempt_id)

    def giving_way(self, model: str) -> list[Attempt]:
        """Those that have given way, and have not ended yet."""
        return [self.data[attempt_id] for attempt_id in self._giving_way.get(model, ())]

    def __setitem__(self, attempt_id: str, attempt: Attempt) -> None:
        super().__setitem__(attempt_id, attempt)
        self._of_class.setdefault(_key(attempt), {})[attempt_id] = None

    def __delitem__(self, attempt_id: str) -> None:
        attempt = self.data[attempt_id]
        key = _key(attempt)
        super().__delitem__(attempt_id)
        if attempt.gives_way is not None:
            ending = self._giving_way[attempt.place.model]
            ending.discard(attempt_id)
            if not ending:
                del self._giving_way[attempt.place.model]
        del self._of_class[key][attempt_id]
        if not self._of_class[key]:
            del self._of_class[key]


def _key(attempt: Attempt) -> tuple[str, str]:
    return attempt.place.model, attempt.place.priority
