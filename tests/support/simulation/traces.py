"""Days with more models than memory, as the brain and its peer live through them in the same world."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from random import Random

from orchestratord.core import effects, events
from orchestratord.core.facts.model import ModelSpec, Origin
from orchestratord.core.placement.turns import LONGEST_IN_SWITCHES
from orchestratord.core.state import BrainConfig
from orchestratord.simulation.clients import Clients
from orchestratord.simulation.day import Arrival
from orchestratord.simulation.plan import GIB, DevicePlan, HostPlan, ModelPlan, WorldPlan
from orchestratord.simulation.pool_manager import START_S
from orchestratord.simulation.process import BATCH_PENALTY, PREFILL_TIMES_FASTER
from orchestratord.simulation.true_size import TrueSize
from orchestratord.simulation.world import World
from support.simulation.peer import LeastRecentlyUsed

DISK_MIB_PER_S = 1500.0
READS_MIB_PER_S = 400_000.0
"""A card reads a model's weights for each token."""

SLOTS = 4
APPS = ("web", "agent", "cron", "ide", "bot")
TWELVE = (
    *((3, 2000), (4, 2800), (5, 3500), (6, 4400), (7, 5000), (8, 6000)),
    *((9, 6900), (10, 7800), (11, 8500), (12, 9500), (14, 11_000), (16, 13_000)),
)
"""What models take of a card, in GiB, and their weights, in MiB."""
LONGEST_PROMPT, LONGEST_ANSWER = 3500, 2000
BEGINS_S, UNTIL_DONE_S = 2.0, 3600.0


@dataclass(frozen=True)
class Trace:
    """Arrivals and the world that they come to, the same for the brain and its peer."""

    hosts: tuple[HostPlan, ...]
    models: tuple[ModelPlan, ...]
    work: Sequence[Arrival]
    seed: int


@dataclass(frozen=True)
class Done:
    """In virtual seconds, from when the client had the task: until it started first, and until it ended."""

    arrival: Arrival
    waited_s: float
    took_s: float


@dataclass(frozen=True)
class Lived:
    """`unanswered` tasks have not ended within an hour of the last one's coming."""

    done: tuple[Done, ...]
    loads: int
    unanswered: int

    @property
    def mean_s(self) -> float:
        """Until the end, of all."""
        return statistics.mean(one.took_s for one in self.done)

    @property
    def p95_s(self) -> float:
        return statistics.quantiles([one.took_s for one in self.done], n=20)[18]

    @property
    def loads_per_1000(self) -> float:
        return 1000 * self.loads / len(self.done)

    def waited_s(self, whose: Callable[[Arrival], bool]) -> list[float]:
        return [one.waited_s for one in self.done if whose(one.arrival)]


def lived(trace: Trace, *, by_peer: bool = False) -> Lived:
    plan = WorldPlan(seed=trace.seed, hosts=trace.hosts, models=trace.models)
    world = World(plan, BrainConfig(queue_capacity=100_000), map(_registered, trace.models))
    if by_peer:
        world.brain = LeastRecentlyUsed()  # type: ignore[assignment]  # it hears and wants what the brain does
    clients, started, done, loads = Clients(world), dict[str, float](), list[Done](), 0

    def listen(effect: effects.Effect) -> None:
        nonlocal loads
        now = world.schedule.now
        if isinstance(effect, effects.StartWorker):
            loads += 1
        elif isinstance(effect, effects.StartRun):
            started.setdefault(effect.request.task_id, now)
        elif isinstance(effect, effects.AppendTerminal) and effect.task_id in started:
            arrival = clients.arrivals[effect.task_id]
            done.append(Done(arrival, started[effect.task_id] - arrival.at, now - arrival.at))

    world.listeners.append(listen)
    world.begin()
    for arrival in trace.work:
        world.schedule.at(arrival.at, partial(clients.come, arrival))
    end = trace.work[-1].at + UNTIL_DONE_S
    while len(done) < len(trace.work) and world.schedule.now < end:
        world.schedule.run_until(world.schedule.now + 5.0)
    return Lived(tuple(done), loads, len(trace.work) - len(done))


# Four cards of three hosts, or one card; twelve models, some of them asked for often.


def mixed(seed: int, per_s: float, lasts_s: float = 2400.0) -> Trace:
    """Five apps; in one minute of ten three times as many tasks come."""
    random, models = Random(seed), _models(TWELVE)  # noqa: S311  # a schedule, not a secret
    names = _shuffled(random, models)

    def arrivals() -> Iterator[Arrival]:
        at = 0.0
        while True:
            at += random.expovariate(per_s * (3 if at % 600 < 60 else 1))
            if at >= lasts_s:
                return
            name = random.choices(names, _popularity(0.9))[0]
            tokens_in = min(LONGEST_PROMPT, round(random.lognormvariate(6, 1)))
            tokens_out = min(LONGEST_ANSWER, 1 + round(random.lognormvariate(4.8, 0.8)))
            yield _arrival(at, random.choice(APPS), name, tokens_in, tokens_out)

    return Trace(HOME, models, tuple(arrivals()), seed)


def now_and_then(
    seed: int, count: int, every_s: float, *, steep: float, drifts: bool = False, at_home: bool = False
) -> Trace:
    """One app, short answers; where it drifts, others are asked for often after each 400 tasks."""
    random, models = Random(seed), _models(TWELVE)  # noqa: S311  # a schedule, not a secret
    names = _shuffled(random, models)
    work: list[Arrival] = []
    at = 0.0
    for number in range(count):
        at += random.expovariate(1 / every_s)
        if drifts and number % 400 == 0:
            random.shuffle(names)
        name = random.choices(names, _popularity(steep))[0]
        work.append(_arrival(at, "", name, 200, random.randint(20, 120)))
    return Trace(HOME if at_home else ONE_CARD, models, tuple(work), seed)


def two_large(seed: int, lasts_s: float = 1800.0) -> Trace:
    """One after the other is asked for, and the card has room for one: 86 % of what it can do, four at once."""
    random = Random(seed)  # noqa: S311  # a schedule, not a secret
    models, per_s, at = _models(((18, 12_000), (18, 12_000))), 0.72, 0.0
    work: list[Arrival] = []
    for model in cycle(models):
        at += random.expovariate(per_s)
        if at >= lasts_s:
            break
        work.append(_arrival(at, "", model.name, 200, 100))
    return Trace(ONE_CARD, models, tuple(work), seed)


CALM = tuple(f"calm{number}" for number in range(4))


def calm_apps(seed: int, *, flood: bool, at_home: bool, lasts_s: float = 3600.0) -> Trace:
    """Four apps ask every 40 s for any of the models; a fifth asks a hundred times as often."""
    random = Random(seed)  # noqa: S311  # a schedule, not a secret
    models, work = _models(TWELVE), list[Arrival]()
    for app, every_s in (*((name, 40.0) for name in CALM), ("flood", 0.4)):
        at = 0.0
        while (at := at + random.expovariate(1 / every_s)) < lasts_s:
            name = random.choice(models).name
            if flood or app in CALM:
                work.append(_arrival(at, app, name, 200, random.randint(50, 200)))
    return Trace(HOME if at_home else ONE_CARD, models, tuple(sorted(work, key=lambda one: one.at)), seed)


LARGE = "model0"


def large_beside_small(seed: int, lasts_s: float = 2400.0) -> Trace:
    """A model that needs almost the whole card every two minutes, beside eight that are asked for every 4 s."""
    random = Random(seed)  # noqa: S311  # a schedule, not a secret
    models = _models(((20, 17_000), *[(7, 4500)] * 8))
    work = [_arrival(60.0 + 120 * number, "large", LARGE, 200, 50) for number in range(int(lasts_s / 120))]
    at = 0.0
    while (at := at + random.expovariate(1 / 4.0)) < lasts_s:
        work.append(_arrival(at, "small", random.choice(models[1:]).name, 200, random.randint(50, 200)))
    return Trace(ONE_CARD, models, tuple(sorted(work, key=lambda one: one.at)), seed)


# A calm app whose model is not loaded, beside floods for other models: its tasks are its first ones, and due.


def flooded(seed: int) -> Trace:
    random = Random(f"flooded {seed}")  # noqa: S311  # a schedule, not a secret
    gib, choice = random.choice([(12, (5, 7, 9, 11)), (24, (9, 13, 16, 20))])
    hosts = (_host("garage", **dict.fromkeys(random.choice(["a", "a", "a", "ab"]), gib)),)
    sizes = random.choices(choice, k=random.choice([3, 4, 5]))
    models = _models([(size, 750 * size) for size in sizes])
    work: list[Arrival] = []
    for number, model in enumerate(models[1:]):
        within_s, tokens = random.choice([1, 200]), random.choice([20, 100, 300])
        work += [
            _arrival(1 + within_s * random.random(), f"flood{number}", model.name, 200, tokens)
            for _ in range(random.choice([50, 200, 600]))
        ]
    at = 10.0
    while at < 400:
        work.append(_arrival(at, CALM[0], models[0].name, 200, random.randint(10, 60)))
        at += random.uniform(20, 60)
    return Trace(hosts, models, tuple(sorted(work, key=lambda one: one.at)), seed)


def longest_wait_s(trace: Trace) -> float:
    """What the calm app waits at most for a start: as long as its class may, or several switches; then until what runs
    has ended, and its model is loaded.
    """
    mine, *others = trace.models
    load_s, back_s = _load_s(mine), max(map(_load_s, others))
    speed = {model.name: model.decode_tokens_per_s for model in trace.models}
    longest_run_s = max(_alone_s(one, speed[one.model]) for one in trace.work) * (1 + BATCH_PENALTY * (SLOTS - 1))
    class_s = BrainConfig().model_wait_s
    return max(class_s, LONGEST_IN_SWITCHES * (load_s + back_s)) + longest_run_s + load_s


def _load_s(model: ModelPlan) -> float:
    return START_S + model.needs_mib / DISK_MIB_PER_S


def _alone_s(arrival: Arrival, tokens_per_s: float) -> float:
    return (arrival.work.tokens_in / PREFILL_TIMES_FASTER + arrival.work.tokens_out) / tokens_per_s


def _host(node_id: str, **cards: int) -> HostPlan:
    devices = (DevicePlan(f"GPU-{node_id}-{name}", "RTX 3090", gib * GIB, 0, 1.0) for name, gib in cards.items())
    return HostPlan(node_id, tuple(devices), DISK_MIB_PER_S)


HOME = (_host("garage", a=24, b=12), _host("attic", a=24), _host("cellar", a=16))
ONE_CARD = (_host("garage", a=24),)


def _models(sizes: Sequence[tuple[int, int]]) -> tuple[ModelPlan, ...]:
    return tuple(
        ModelPlan(f"model{number}", gib * GIB, weights_mib, READS_MIB_PER_S / weights_mib)
        for number, (gib, weights_mib) in enumerate(sizes)
    )


def _registered(model: ModelPlan) -> events.ModelRegistered:
    spec = ModelSpec(model.name, f"file:/models/{model.name}.gguf", slots=SLOTS, vram_claim_mib=model.claim_mib)
    return events.ModelRegistered(spec, Origin.CALL, "a trace")


def _shuffled(random: Random, models: Sequence[ModelPlan]) -> list[str]:
    names = [model.name for model in models]
    random.shuffle(names)
    return names


def _popularity(steep: float) -> list[float]:
    return [1 / (number + 1) ** steep for number in range(len(TWELVE))]


def _arrival(at: float, app: str, model: str, tokens_in: int, tokens_out: int) -> Arrival:
    return Arrival(BEGINS_S + at, app, model, "", TrueSize(tokens_in, tokens_out))
