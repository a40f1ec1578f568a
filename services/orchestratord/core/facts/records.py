"""Values that the brain wants stored: policy that people set, and things learnt."""

from typing import Protocol


class Record(Protocol):
    """A frozen dataclass that is kept whole, under a key that is unique among its kind.

    It holds no times of the brain's clock, which mean nothing after a restart; where a time is needed, it is in
    milliseconds since 1970 and came in with an event.
    """

    @property
    def record_key(self) -> str: ...
