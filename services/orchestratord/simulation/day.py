"""What happens in a simulated world, and when: a day of work, from its description and a seed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from orchestratord.core import events
from orchestratord.simulation.plan import WorldPlan
from orchestratord.simulation.true_size import TrueSize

MOST_ARRIVALS = 200_000
"""In one simulation: minutes of this machine's time, and 1 KiB of its memory for each."""


@dataclass(frozen=True)
class Arrival:
    """A task that a client has at a time, in seconds since the day began."""

    at: float
    app: str
    model: str
    priority: str
    work: TrueSize
    deadline_s: float | None = None


@dataclass(frozen=True)
class Stream:
    """Tasks that come as if by chance from `begins_s` to `ends_s`, `per_hour` at the mean, `at_once` of them each time.

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
    ends_s: float = 86_400.0
    deadline_s: float | None = None

    @property
    def expected(self) -> float:
        """Tasks, all together."""
        return self.per_hour * (self.ends_s - self.begins_s) / 3600

    def arrivals(self, random: Random) -> Iterator[Arrival]:
        at = self.begins_s
        while self.per_hour > 0:
            at += random.expovariate(self.per_hour / self.at_once / 3600)
            if at >= self.ends_s:
                return
            for _ in range(self.at_once):
                work = TrueSize(random.randint(*self.tokens_in), random.randint(*self.tokens_out))
                yield Arrival(at, self.app, self.model, self.priority, work, self.deadline_s)


@dataclass(frozen=True)
class Day:
    """`settings` are the models, apps and rules. `work` is the same, whatever becomes of the rest."""

    plan: WorldPlan
    settings: tuple[events.Event, ...]
    work: tuple[Arrival, ...]
    lasts_s: float

    def instead(self, other: "Day") -> "Day":
        """The work of this day, with the hardware, models, apps and rules of another one."""
        return replace(self, plan=other.plan, settings=other.settings)

    def with_work(self, arrivals: Iterable[Arrival]) -> "Day":
        """The tasks that came to an orchestrator, instead of these. The day ends with the last one."""
        work = tuple(sorted(arrivals, key=lambda arrival: arrival.at))
        return replace(self, work=work, lasts_s=work[-1].at if work else 0.0)


def drawn(streams: Sequence[Stream], seed: int) -> tuple[Arrival, ...]:
    """All arrivals, in order. Each stream draws for itself, so that another one changes nothing of its own."""
    found = [
        arrival
        for number, stream in enumerate(streams)
        for arrival in stream.arrivals(Random(f"{seed} {number}"))  # noqa: S311  # a schedule, not a secret
    ]
    return tuple(sorted(found, key=lambda arrival: arrival.at))
