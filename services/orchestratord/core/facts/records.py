"""Values that the brain wants stored: policy that people set, and things learnt."""

from dataclasses import dataclass
from typing import Protocol


class Record(Protocol):
    """A frozen dataclass that is kept whole, under a key that is unique among its kind.

    It holds no times of the brain's clock, which mean nothing after a restart; where a time is needed, it is in
    milliseconds since 1970 and came in with an event.
    """

    @property
    def record_key(self) -> str: ...


@dataclass(frozen=True, slots=True)
class RecordChange:
    """`after` takes the place of `before`; without it the record goes."""

    before: Record | None
    after: Record | None

    @property
    def record(self) -> Record:
        record = self.after if self.after is not None else self.before
        assert record is not None  # a change is of something
        return record
