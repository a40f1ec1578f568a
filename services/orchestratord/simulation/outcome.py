"""What became of a simulated day: waits by app, loads, evictions, and what ran on the cards."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from llorch.finish_reason import FinishReason
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.facts.fleet import Leaving
from orchestratord.core.facts.task import TaskEnd, TaskError, Terminal
from orchestratord.simulation.clients import Clients
from orchestratord.simulation.host import Card
from orchestratord.simulation.watch import Watch
from orchestratord.simulation.world import World

_CUT_OFF = frozenset({FinishReason.DEADLINE, FinishReason.CANCELLED})
_LATE = "the deadline came before the answer was whole"
_UNFINISHED = "neither answered nor refused 6 h after the day"


@dataclass(frozen=True)
class Waits:
    """Of an app's tasks: `failed` had been accepted, `unfinished` still wait or run 6 h after the day.

    Waits are from when a client had the task to its first start, or to its end where it never started; answers are from
    when it had the task to the last token. In seconds; None where there are none.
    """

    tasks: int
    answered: int
    refused: int
    failed: int
    unfinished: int
    wait_median_s: float | None
    wait_p95_s: float | None
    wait_longest_s: float | None
    answer_median_s: float | None
    answer_p95_s: float | None


@dataclass(frozen=True)
class CardUse:
    """Shares, from 0 to 1: of the time until all was done, in which some task ran there (`busy`); of its memory, that
    models held at the mean. `models` are those that ran there, first what ran for longest.
    """

    place: str
    name: str
    busy: float
    held: float
    models: tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """Why so many tasks got no answer."""

    count: int
    message: str


@dataclass(frozen=True)
class DayOutcome:
    """`apps` by name, where what asks as no app is ""; of `gave_way`: runs of a lower priority, for a higher one."""

    apps: dict[str, Waits]
    cards: tuple[CardUse, ...]
    loads: int
    evictions: int
    gave_way: int
    problems: tuple[Problem, ...] = ()


class DayTally(Watch):
    """Looks at the cards at every tick of the orchestrator."""

    def __init__(self, world: World, clients: Clients) -> None:
        self._world = world
        self._clients = clients
        self._waits: dict[str, list[float]] = defaultdict(list)
        self._answers: dict[str, list[float]] = defaultdict(list)
        self._started: set[str] = set()
        self._ended: set[str] = set()
        self._failed: Counter[str] = Counter()
        self._problems: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._evicted: set[str] = set()
        """A worker is told to end until it does."""
        self._busy: Counter[tuple[str, str]] = Counter()
        self._ran: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._held_mib: Counter[tuple[str, str]] = Counter()
        self._looks = 0

    def wants(self, effect: effects.Effect) -> None:
        if isinstance(effect, effects.StartRun):
            self._starts(effect.request.task_id)
        elif isinstance(effect, effects.AppendTerminal):
            self._ends(effect.task_id, effect.terminal)
        elif isinstance(effect, effects.StartWorker):
            self._counts["loads"] += 1
        elif isinstance(effect, effects.StopWorker) and effect.why is Leaving.EVICTED:
            self._evicted.add(effect.worker_id)
        elif isinstance(effect, effects.RunGaveWay):
            self._counts["gave_way"] += 1

    def check(self, event: events.Event) -> None:
        if isinstance(event, events.Tick):
            self._look()

    def outcome(self) -> DayOutcome:
        """Once; what goes on now has waited until now."""
        unfinished: Counter[str] = Counter()
        for task_id in self._clients.arrivals.keys() - self._ended:
            self._starts(task_id)
            unfinished[self._clients.arrivals[task_id].app] += 1
        refused = Counter(arrival.app for arrival, _ in self._clients.refused)
        problems = self._problems + Counter(error.message for _, error in self._clients.refused)
        problems[_UNFINISHED] = unfinished.total()
        came = refused + Counter(arrival.app for arrival in self._clients.arrivals.values())
        cards = tuple(
            self._use_of(node_id, index, card)
            for node_id, manager in self._world.managers.items()
            for index, card in enumerate(manager.host.cards.values())
        )
        return DayOutcome(
            {app: self._waits_of(app, came[app], refused[app], unfinished[app]) for app in sorted(came)},
            cards,
            self._counts["loads"],
            len(self._evicted),
            self._counts["gave_way"],
            tuple(Problem(count, message) for message, count in problems.most_common() if count),
        )

    def _starts(self, task_id: str) -> None:
        if task_id not in self._started:
            self._started.add(task_id)
            arrival = self._clients.arrivals[task_id]
            self._waits[arrival.app].append(self._world.schedule.now - arrival.at)

    def _ends(self, task_id: str, terminal: Terminal) -> None:
        self._starts(task_id)
        self._ended.add(task_id)
        arrival = self._clients.arrivals[task_id]
        if why := _why_not_answered(terminal):
            self._failed[arrival.app] += 1
            self._problems[why] += 1
        else:
            self._answers[arrival.app].append(self._world.schedule.now - arrival.at)

    def _waits_of(self, app: str, tasks: int, refused: int, unfinished: int) -> Waits:
        waits, answers = sorted(self._waits[app]), sorted(self._answers[app])
        return Waits(
            tasks,
            len(answers),
            refused,
            self._failed[app],
            unfinished,
            _quantile(waits, 0.5),
            _quantile(waits, 0.95),
            _quantile(waits, 1.0),
            _quantile(answers, 0.5),
            _quantile(answers, 0.95),
        )

    def _look(self) -> None:
        self._looks += 1
        busy: set[tuple[str, str]] = set()
        for node_id, manager in self._world.managers.items():
            for process in manager.host.processes.values():
                if not process.is_alive:
                    continue
                runs = process.state is WorkerState.READY and process.active > 0
                for device_id, mib in zip(process.spec.device_ids, process.needs_mib, strict=True):
                    place = node_id, device_id
                    self._held_mib[place] += mib
                    if runs:
                        busy.add(place)
                        self._ran[place][process.spec.model] += 1
        self._busy.update(busy)

    def _use_of(self, node_id: str, index: int, card: Card) -> CardUse:
        looks, place = max(1, self._looks), (node_id, card.plan.device_id)
        held = self._held_mib[place] / looks / max(1, card.capacity_mib)
        models = tuple(model for model, _ in self._ran[place].most_common())
        return CardUse(f"{node_id}/{index}", card.plan.name, self._busy[place] / looks, held, models)


def _why_not_answered(terminal: Terminal) -> str:
    """Empty for an answer. One that its deadline has cut off is none."""
    if isinstance(terminal, TaskError):
        return terminal.message
    if isinstance(terminal, TaskEnd):
        reasons = [choice.finish_reason for choice in terminal.result.choices]
        return _LATE if _CUT_OFF.intersection(reasons) else ""
    return _LATE


def _quantile(ordered: list[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
