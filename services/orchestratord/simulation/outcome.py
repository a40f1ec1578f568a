"""What became of a simulated day: waits by app, loads, evictions, and how busy the cards were."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.facts.fleet import Leaving
from orchestratord.core.facts.task import Stopped, TaskEnd, TaskError
from orchestratord.simulation.clients import Clients
from orchestratord.simulation.host import Card
from orchestratord.simulation.watch import Watch
from orchestratord.simulation.world import World


@dataclass(frozen=True)
class Waits:
    """From when a client had a task to its first start; None where none started. What failed had been accepted."""

    tasks: int
    answered: int
    refused: int
    failed: int
    median_s: float | None
    p95_s: float | None
    longest_s: float | None


@dataclass(frozen=True)
class CardUse:
    """Shares of the day, from 0 to 1: something ran there; of its memory, models held so much at the mean."""

    place: str
    name: str
    busy: float
    held: float


@dataclass(frozen=True)
class DayOutcome:
    """`apps` by name, where what asks as no app is ""; `problems` says of each kind of refusal or failure how many."""

    apps: dict[str, Waits]
    cards: tuple[CardUse, ...]
    loads: int
    evictions: int
    gave_way: int
    problems: dict[str, int] = field(default_factory=dict)


class DayTally(Watch):
    """Looks at the cards at every tick of the orchestrator."""

    def __init__(self, world: World, clients: Clients, ends_at: float) -> None:
        self._world = world
        self._clients = clients
        self._waits: dict[str, list[float]] = defaultdict(list)
        self._started: set[str] = set()
        self._ends: dict[str, Counter[str]] = defaultdict(Counter)
        self._problems: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._evicted: set[str] = set()
        """A worker is told to end until it does."""
        self._busy: Counter[tuple[str, str]] = Counter()
        self._held_mib: Counter[tuple[str, str]] = Counter()
        self._looks = 0
        self._ends_at = ends_at

    def wants(self, effect: effects.Effect) -> None:
        if isinstance(effect, effects.StartRun):
            self._starts(effect.request.task_id)
        elif isinstance(effect, effects.AppendTerminal):
            self._ended(effect)
        elif isinstance(effect, effects.StartWorker):
            self._counts["loads"] += 1
        elif isinstance(effect, effects.StopWorker) and effect.why is Leaving.EVICTED:
            self._evicted.add(effect.worker_id)
        elif isinstance(effect, effects.RunGaveWay):
            self._counts["gave_way"] += 1

    def check(self, event: events.Event) -> None:
        if isinstance(event, events.Tick) and self._world.schedule.now <= self._ends_at:
            self._look()

    def outcome(self) -> DayOutcome:
        refused = Counter(arrival.app for arrival, _ in self._clients.refused)
        for _, error in self._clients.refused:
            self._problems[error.message] += 1
        came = Counter(arrival.app for arrival in self._clients.arrivals.values())
        cards = tuple(
            self._use_of(node_id, index, card)
            for node_id, manager in self._world.managers.items()
            for index, card in enumerate(manager.host.cards.values())
        )
        return DayOutcome(
            {app: self._waits_of(app, came[app] + refused[app], refused[app]) for app in sorted(came | refused)},
            cards,
            self._counts["loads"],
            len(self._evicted),
            self._counts["gave_way"],
            dict(self._problems.most_common()),
        )

    def _starts(self, task_id: str) -> None:
        if task_id not in self._started:
            self._started.add(task_id)
            arrival = self._clients.arrivals[task_id]
            self._waits[arrival.app].append(self._world.schedule.now - arrival.at)

    def _ended(self, effect: effects.AppendTerminal) -> None:
        app = self._clients.arrivals[effect.task_id].app
        if isinstance(effect.terminal, TaskEnd):
            self._ends[app]["answered"] += 1
            return
        self._ends[app]["failed"] += 1
        self._problems[_why(effect.terminal)] += 1

    def _waits_of(self, app: str, tasks: int, refused: int) -> Waits:
        waits = sorted(self._waits[app])
        ends = self._ends[app]
        of = (_quantile(waits, share) for share in (0.5, 0.95, 1.0))
        return Waits(tasks, ends["answered"], refused, ends["failed"], *of)

    def _look(self) -> None:
        self._looks += 1
        busy: set[tuple[str, str]] = set()
        for node_id, manager in self._world.managers.items():
            for process in manager.host.processes.values():
                if not process.is_alive:
                    continue
                runs = process.state is WorkerState.READY and process.active > 0
                for device_id, mib in zip(process.spec.device_ids, process.needs_mib, strict=True):
                    self._held_mib[node_id, device_id] += mib
                    if runs:
                        busy.add((node_id, device_id))
        self._busy.update(busy)

    def _use_of(self, node_id: str, index: int, card: Card) -> CardUse:
        looks, place = max(1, self._looks), (node_id, card.plan.device_id)
        held = self._held_mib[place] / looks / max(1, card.capacity_mib)
        return CardUse(f"{node_id}/{index}", card.plan.name, self._busy[place] / looks, held)


def _why(terminal: TaskError | Stopped) -> str:
    return terminal.message if isinstance(terminal, TaskError) else str(terminal.finish_reason)


def _quantile(ordered: list[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
