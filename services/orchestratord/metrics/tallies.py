"""What has happened since the start, counted. Pure."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from orchestratord.metrics.window import Window

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
CANDIDATES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
ERRORS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)

MOST_VALUES = 200
OTHER = "other"


class Bounded:
    """Values of a label whose number is not bounded: the first so many by name, all further ones together."""

    def __init__(self, most: int = MOST_VALUES) -> None:
        self._most = most
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        if value not in self._seen:
            if len(self._seen) >= self._most:
                return OTHER
            self._seen.add(value)
        return value


class Count:
    """A counter: how often each combination of label values came. Without labels the key is ()."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...] = ()) -> None:
        self.name = name
        self.text = text
        self.labels = labels
        self.counts: Counter[tuple[str, ...]] = Counter() if labels else Counter({(): 0})

    def add(self, *values: str, amount: int = 1) -> None:
        """`values` in the order of `labels`."""
        self.counts[values] += amount


class Histogram:
    """Counts by the first bound that an amount does not exceed; the last ones exceed all."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, amount: float) -> None:
        self.counts[bisect_left(self.bounds, amount)] += 1
        self.sum += amount


class Distribution:
    """One histogram for each value of a label, or a single one under the key () where there is no label."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], label: str | None = None) -> None:
        self.name = name
        self.text = text
        self.labels = () if label is None else (label,)
        self.histograms: defaultdict[tuple[str, ...], Histogram] = defaultdict(lambda: Histogram(bounds))
        if label is None:
            self.histograms[()]

    def observe(self, amount: float, *values: str) -> None:
        self.histograms[values].observe(amount)


class Tallies:
    """A tally has its name and its text; what is declared here is answered to scrapers as it stands."""

    def __init__(self) -> None:
        self.events = Count("brain_events", "Events that the brain has handled.")
        self.admissions = Count("admissions", "Tasks that came, by whether they were let in.", ("priority", "reason"))
        self.ended = Count("tasks_ended", "Tasks that ended, by how.", ("priority", "state"))
        self.deadlines = Count("deadlines", "Tasks with a deadline that ended.", ("priority", "outcome"))
        self.tokens = Count("tokens", "Tokens of runs, however they ended.", ("model", "direction"))
        self.decisions = Count("placement_decisions", "Decisions where to go.", ("outcome", "pinned", "fallback"))
        self.loads = Count("model_loads", "Loads that came to an end.", ("model", "outcome"))
        self.attempts_lost = Count("attempts_lost", "Attempts of tasks that were lost, by why.", ("model", "why"))
        self.gave_way = Count(
            "runs_given_way", "Runs that gave way to a task of a higher class, by their own.", ("model", "priority")
        )
        self.stops = Count("worker_stops", "Workers that were told to end, by why.", ("why",))
        self.queue_wait = Distribution(
            "queue_wait_seconds", "From admission to the start of the work.", SECONDS, "priority"
        )
        self.first_token = Distribution(
            "first_token_seconds", "From admission to the first token.", SECONDS, "priority"
        )
        self.prediction_error = Distribution(
            "prediction_error_ratio", "Error of predictions, relative to what came.", ERRORS, "kind"
        )
        self.load_seconds = Distribution("load_seconds", "From the start of a worker until it is ready.", SECONDS)
        self.considered = Distribution(
            "placement_candidates_considered", "Places that a decision looked at.", CANDIDATES
        )
        self.recent_tokens: Window[tuple[str, str]] = Window()
        """By priority and app."""
        self.recent_deadlines: Window[tuple[str, str]] = Window()
        """By priority and outcome."""
        self.recent_chances: Window[str] = Window()
        """`count` of probabilities that were judged, and the sum of their `squared_error`."""

    def declared(self) -> Iterator[Count | Distribution]:
        """All that is counted since the start, in the order of the declarations."""
        return (tally for tally in vars(self).values() if isinstance(tally, Count | Distribution))
