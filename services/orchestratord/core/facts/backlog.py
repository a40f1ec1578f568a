"""How much work waits: tasks, counted by what bounds their answers. A sum over many costs no more than one over few."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum


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

    @classmethod
    def of(cls, sizes: Iterable[TaskSize]) -> "Backlog":
        backlog = cls()
        for size in sizes:
            backlog.add(size)
        return backlog

    @property
    def tasks(self) -> int:
        return round(sum(part.tasks for part in self.by_kind.values()))

    def __bool__(self) -> bool:
        return bool(self.by_kind)

    def add(self, size: TaskSize, times: int = 1) -> None:
        """-1 times to take it out again."""
        self._sum(_kind(size), times, times * size.prompt_tokens, times * (size.limit or 0))

    def join(self, other: "Backlog", tasks: int) -> None:
        """With so many of the other's tasks, which are as they are on the average."""
        whole = other.tasks
        for kind, part in other.by_kind.items() if tasks else ():
            share = tasks / whole
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


def _kind(size: TaskSize) -> int:
    if size.limit is None:
        return _Kind.OPEN
    return _Kind.FILLED if size.fills_limit else size.limit.bit_length()
