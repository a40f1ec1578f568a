"""Which slot a run gets, and how much of its prompt is there already. Pure.

A slot keeps its tokens after its run has ended: the next turn of a conversation begins with them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

MIN_REUSE = 16
"""A shorter common beginning is no reason to prefer one slot to another."""

MIN_LOSS = 64
"""So many tokens may be overwritten: evaluating them again costs less than saving them."""

_COPY_PAYS = 64
"""A slot is copied as a whole, used or not: for less than this part of it, evaluating is no slower."""

_STRIDE = 256


def common_prefix(one: Sequence[int], other: Sequence[int], limit: int) -> int:
    """How many tokens at the beginning are the same, at most `limit`."""
    count = min(len(one), len(other), limit)
    for at in range(0, count, _STRIDE):
        end = min(at + _STRIDE, count)
        if one[at:end] != other[at:end]:
            return next(index for index in range(at, end) if one[index] != other[index])
    return max(count, 0)


class Holder(Protocol):
    """What occupies a slot. The context has evaluated the first `evaluated` of `tokens`. `session` is whose they are;
    empty for no session's.
    """

    tokens: list[int]
    evaluated: int
    session: str


@dataclass(slots=True, eq=False)
class Kept:
    """What a run left behind."""

    tokens: list[int] = field(default_factory=list)
    evaluated: int = 0
    session: str = ""


@dataclass(slots=True, eq=False)
class Slot:
    """`watermark` is as in FixedChunks: so many tokens are good for a deterministic run. `used_at` grows with every use
    of any slot.
    """

    number: int
    holder: Holder = field(default_factory=Kept)
    busy: bool = False
    used_at: int = 0
    watermark: int = 0

    @property
    def tokens(self) -> list[int]:
        return self.holder.tokens

    @property
    def held(self) -> int:
        return self.holder.evaluated


@dataclass(frozen=True, slots=True)
class Placement:
    """`reused` tokens are in `source` already, which is the slot itself or another one to copy from."""

    slot: Slot
    source: Slot
    reused: int

    @property
    def loses(self) -> bool:
        """Whether the slot has something worth saving that will not be there any more."""
        kept = self.reused if self.source is self.slot else 0
        return self.slot.held - kept >= MIN_LOSS


class Slots:
    def __init__(self, count: int, context_per_slot: int) -> None:
        self._slots = [Slot(number) for number in range(count)]
        self._context = context_per_slot
        self._uses = 0

    def __getitem__(self, number: int) -> Slot:
        return self._slots[number]

    @property
    def any_free(self) -> bool:
        return not all(slot.busy for slot in self._slots)

    @property
    def held_tokens(self) -> int:
        return sum(slot.held for slot in self._slots)

    @property
    def warm(self) -> int:
        """Slots in which nothing runs, but something is kept."""
        return sum(not slot.busy and slot.held >= MIN_REUSE for slot in self._slots)

    def choose(self, reusable: Callable[[Slot], int]) -> Placement:
        """A free slot for a run that can reuse so many tokens of each. There has to be a free one."""
        found = {slot.number: reusable(slot) for slot in self._slots}
        source = max(self._slots, key=lambda slot: (found[slot.number], not slot.busy, slot.used_at))
        target = self.least_wanted()
        reused = found[source.number]
        if reused < MIN_REUSE:
            return Placement(target, target, 0)
        is_small_loss = source.held - reused < MIN_LOSS
        if not source.busy and (is_small_loss or source is target):
            return Placement(source, source, reused)
        if reused * _COPY_PAYS >= self._context:
            return Placement(target, source, reused)
        return Placement(target, target, 0) if source.busy else Placement(source, source, reused)

    def most(self, reusable: Callable[[Slot], int]) -> int:
        """That can be reused of any slot."""
        return max(map(reusable, self._slots))

    def least_wanted(self) -> Slot:
        """Of the free slots the lowest empty one, since neighbours share one pass through the model; else the
        one that was used the longest time ago.
        """
        free = (slot for slot in self._slots if not slot.busy)
        return min(free, key=lambda slot: (slot.used_at if slot.held >= MIN_REUSE else 0, slot.number))

    def idle_of(self, session: str) -> list[Slot]:
        """Those that hold tokens of a session, in which nothing runs."""
        return [slot for slot in self._slots if not slot.busy and slot.held and slot.holder.session == session]

    def take(self, slot: Slot, holder: Holder) -> None:
        slot.busy = True
        self.fill(slot, holder)

    def fill(self, slot: Slot, holder: Holder) -> None:
        """It is used, also where nothing runs in it."""
        slot.holder = holder
        self._uses += 1
        slot.used_at = self._uses

    def release(self, slot: Slot) -> None:
        slot.busy = False
        slot.holder = Kept(slot.tokens[: slot.held], slot.held, slot.holder.session)

    def empty(self, slot: Slot) -> None:
        slot.holder = Kept()
        slot.watermark = 0
