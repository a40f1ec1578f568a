"""What happens in a simulated world, and when: a day of work, from its description and a seed."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from orchestratord.core import events
from orchestratord.simulation.plan import WorldPlan
from orchestratord.simulation.true_size import TrueSize

MOST_ARRIVALS = 200_000
"""In one simulation: minutes of this machine's time, and 1 KiB of its memory for each."""

DAY_S = 86_400.0


@dataclass(frozen=True)
class Arrival:
    """A task that a client has at a time, in seconds since the first day began."""

    at: float
    app: str
    model: str
    priority: str
    work: TrueSize
    deadline_s: float | None = None


@dataclass(frozen=True)
class Stream:
    """Tasks that come as if by chance, `per_hour` at the mean, `at_once` of them each time; on each day from `begins_s`
    to `ends_s` after its beginning.

    Tokens are drawn evenly from both ends of a range.
    """

    app: str
    model: str
    per_hour: float
    tokens_in: tuple[int, int]
    tokens_out: tuple[int, int]
    priority: str = ""
    at_once: int = 1
    begins_s: float = 0.0
    ends_s: float = DAY_S
    deadline_s: float | None = None

    def expected(self, lasts_s: float) -> float:
        """Tasks, all together."""
        return self.per_hour * sum(max(0.0, end - begin) for begin, end in self._times(lasts_s)) / 3600

    def arrivals(self, random: Random, lasts_s: float) -> Iterator[Arrival]:
        for begin, end in self._times(lasts_s):
            at = begin + random.expovariate(self.per_hour / self.at_once / 3600)
            while at < end:
                for _ in range(self.at_once):
                    work = TrueSize(random.randint(*self.tokens_in), random.randint(*self.tokens_out))
                    yield Arrival(at, self.app, self.model, self.priority, work, self.deadline_s)
                at += random.expovariate(self.per_hour / self.at_once / 3600)

    def _times(self, lasts_s: float) -> Iterator[tuple[float, float]]:
        """The last one may end before it begins: then the day is over first."""
        for day in range(math.ceil(lasts_s / DAY_S)):
            yield day * DAY_S + self.begins_s, min(day * DAY_S + self.ends_s, lasts_s)


@dataclass(frozen=True)
class Day:
    """`settings` are the models, apps and rules that the orchestrator has at its start, `calls` what an operator sets
    once the hosts are there. `work` is the same, whatever becomes of the rest.
    """

    plan: WorldPlan
    settings: tuple[events.Event, ...]
    work: tuple[Arrival, ...]
    lasts_s: float
    calls: tuple[events.AssignmentSet, ...] = ()

    def instead(self, other: "Day") -> "Day":
        """The work of this day, with the hardware, models, apps and rules of another one."""
        return replace(self, plan=other.plan, settings=other.settings)

    def with_work(self, arrivals: Iterable[Arrival]) -> "Day":
        """The tasks that came to an orchestrator, instead of these. The day ends with the last one."""
        work = tuple(sorted(arrivals, key=lambda arrival: arrival.at))
        return replace(self, work=work, lasts_s=work[-1].at if work else 0.0)


def drawn(streams: Sequence[Stream], seed: int, lasts_s: float) -> tuple[Arrival, ...]:
    """All arrivals, in order. Each stream draws for itself, so that another one changes nothing of its own."""
    found: list[Arrival] = []
    alike: Counter[tuple[str, str, str]] = Counter()
    for stream in streams:
        who = stream.app, stream.model, stream.priority
        alike[who] += 1
        random = Random(f"{seed} {who} {alike[who]}")  # noqa: S311  # a schedule, not a secret
        found += stream.arrivals(random, lasts_s)
    return tuple(sorted(found, key=lambda arrival: arrival.at))
