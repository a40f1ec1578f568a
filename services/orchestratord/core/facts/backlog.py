"""How much work waits: tasks, counted by what bounds their answers. A sum over many costs no more than one over few."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise

from orchestratord.core.facts.fair_queue import ARRIVAL_BITS


@dataclass(frozen=True, slots=True)
class TaskSize:
    """What is known of a task before it runs. `prompt_tokens` may be guessed. An answer has at most `limit` tokens, and
    exactly so many if it `fills_limit`; None where only the context bounds it, or nothing is generated.
    """

    prompt_tokens: int = 0
    limit: int | None = None
    fills_limit: bool = False


OPEN = TaskSize()


class _Kind(IntEnum):
    """Answers that are bounded are told apart by the bits of their limits, from 1 on."""

    FILLED = -1
    OPEN = 0


@dataclass(slots=True)
class Part:
    """Tasks of one kind: how many, and the sums of what is known of them. No whole numbers, where apps share."""

    tasks: float = 0.0
    prompt_tokens: float = 0.0
    limit: float = 0.0

    @property
    def mean(self) -> tuple[float, float]:
        """Tokens of the prompt, and the limit of the answer."""
        return self.prompt_tokens / self.tasks, self.limit / self.tasks


@dataclass(slots=True)
class Backlog:
    """`by_kind` has no kind without tasks."""

    by_kind: dict[int, Part] = field(default_factory=dict)

    @property
    def tasks(self) -> int:
        return round(sum(part.tasks for part in self.by_kind.values()))

    def add(self, size: TaskSize, times: int = 1) -> None:
        """-1 times to take it out again."""
        self._sum(_kind(size), times, times * size.prompt_tokens, times * (size.limit or 0))

    def join(self, other: "Backlog", share: float = 1.0) -> None:
        """With all of the other's tasks, or with a share of each kind."""
        for kind, part in other.by_kind.items() if share else ():
            self._sum(kind, part.tasks * share, part.prompt_tokens * share, part.limit * share)

    def parts(self) -> Iterator[tuple[TaskSize, float]]:
        """A task as those of each kind are on the average, and how many there are."""
        for kind, part in self.by_kind.items():
            prompt_tokens, limit = map(round, part.mean)
            size = TaskSize(prompt_tokens, None if kind == _Kind.OPEN else limit, kind == _Kind.FILLED)
            yield size, part.tasks

    def _sum(self, kind: int, tasks: float, prompt_tokens: float, limit: float) -> None:
        part = self.by_kind.setdefault(kind, Part())
        part.tasks += tasks
        part.prompt_tokens += prompt_tokens
        part.limit += limit
        if not part.tasks:
            del self.by_kind[kind]


_BLOCK_BITS = (ARRIVAL_BITS + 6, 6)
"""Of a turn, from the right: blocks of some seconds, and within these of 64 tasks."""


@dataclass(slots=True)
class _Block:
    """Those whose turns have all but the last bits in common: in blocks of fewer bits, or one by one."""

    whole: Backlog = field(default_factory=Backlog)
    blocks: dict[int, "_Block"] = field(default_factory=dict)
    sizes: dict[int, TaskSize] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not (self.blocks or self.sizes)


@dataclass(slots=True)
class Line:
    """Tasks in the order of their turns, which are a number of its own for each."""

    _root: _Block = field(default_factory=_Block)
    _last: int = 0
    """No turn is larger."""

    @property
    def whole(self) -> Backlog:
        return self._root.whole

    def __bool__(self) -> bool:
        return not self._root.is_empty

    def add(self, turn: int, size: TaskSize) -> None:
        self._last = max(self._last, turn)
        block = self._root
        block.whole.add(size)
        for bits in _BLOCK_BITS:
            block = block.blocks.setdefault(turn >> bits, _Block())
            block.whole.add(size)
        block.sizes[turn] = size

    def remove(self, turn: int) -> None:
        path = [self._root]
        for bits in _BLOCK_BITS:
            path.append(path[-1].blocks[turn >> bits])
        size = path[-1].sizes.pop(turn)
        for block in path:
            block.whole.add(size, -1)
        for bits, (block, inner) in reversed(list(zip(_BLOCK_BITS, pairwise(path), strict=True))):
            if inner.is_empty:
                del block.blocks[turn >> bits]

    def before(self, turn: int) -> Backlog:
        """Those that are before it."""
        found, block = Backlog(), self._root
        if turn > self._last:
            found.join(block.whole)
            return found
        for bits in _BLOCK_BITS:
            for number, inner in block.blocks.items():
                if number < turn >> bits:
                    found.join(inner.whole)
            if turn >> bits not in block.blocks:
                return found
            block = block.blocks[turn >> bits]
        for other, size in block.sizes.items():
            if other < turn:
                found.add(size)
        return found


def _kind(size: TaskSize) -> int:
    if size.limit is None:
        return _Kind.OPEN
    return _Kind.FILLED if size.fills_limit else size.limit.bit_length()
