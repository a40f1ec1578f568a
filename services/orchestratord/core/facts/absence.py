"""Something that is away now and may be back."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Absence:
    """`what` names it and stays the same as long as it is away; `why` goes after "which", and is told as of now.

    `back_in_s` is when it is back at the latest, None where that is not known. `soon`: it is worth waiting for, so
    tasks that need it wait instead of being refused, `for_s` at most, if that is known. `by_hand`: it stays away until
    its operator does something.
    """

    what: str
    why: str
    back_in_s: float | None = None
    soon: bool = False
    for_s: float | None = None
    by_hand: bool = False

    @property
    def words(self) -> str:
        return f"{self.what}, which {self.why}"

    @property
    def sentence(self) -> str:
        return f"{self.what} {self.why}"
