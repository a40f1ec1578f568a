"""Worlds with a question: what comes of a flood, of many models on few devices, of predictions."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from unittest import mock

from llorch.worker_spec import WorkerSpec
from orchestratord.core import effects
from orchestratord.core.facts.fleet import Worker
from orchestratord.core.placement import eviction
from orchestratord.core.state import BrainConfig, BrainState
from orchestratord.simulation.plan import GIB, DevicePlan, HostPlan
from support.simulation.plan import AppPlan, AskedModel, FaultPlan, Plan
from support.simulation.world import World

CARD = DevicePlan("GPU-a", "RTX 3090", 24 * GIB, 0, 1.0)
HOST = HostPlan("garage", (CARD,), 2000.0)
SMALL = AskedModel("small", 4 * GIB, 4 * GIB, slots=4, decode_tokens_per_s=40.0)
ONE_HOST = Plan(
    seed=0,
    hosts=(HOST,),
    models=(SMALL,),
    apps=(AppPlan("only", 1.0, 1.0),),
    arrivals_per_s=0.0,
    burst=0,
    disturbed_s=0.0,
    faults=FaultPlan(late_s=0.002),
    queue_capacity=100_000,
    cancels=0.0,
    deadlines=0.0,
    batch_share=0.0,
    durable_share=1.0,
)


@dataclass
class Times:
    """When tasks came, started and were answered, by task; in virtual seconds."""

    world: World
    came: dict[str, float] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    answered: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.world.listeners.append(self._listen)

    def waited_s(self) -> list[float]:
        """From coming to the answer."""
        return [self.answered[task_id] - came for task_id, came in self.came.items() if task_id in self.answered]

    def _listen(self, effect: effects.Effect) -> None:
        now = self.world.schedule.now
        if isinstance(effect, effects.OpenLog):
            self.came[effect.request.task_id] = now
        elif isinstance(effect, effects.StartRun):
            self.started.setdefault(effect.request.task_id, now)
        elif isinstance(effect, effects.AppendTerminal):
            self.answered[effect.task_id] = now


# Two apps of equal weight; one of them sends a hundred times as much.

QUIET_PER_S = 0.3
"""About a third of what the model can serve."""


def wait_beside(flood: bool, seed: int = 1) -> float:
    """Median seconds from a quiet app's request to its answer, alone or beside an app that sends 100 times as much."""
    apps = (AppPlan("quiet", 1.0, 1.0), AppPlan("loud", 1.0, 100.0))
    world = World(ONE_HOST.with_(seed=seed, apps=apps))
    times = Times(world)
    world.begin()
    quiet = _send_every(world, QUIET_PER_S, "quiet")
    if flood:
        _send_every(world, 100 * QUIET_PER_S, "loud")
    world.schedule.run_until(300.0)
    return statistics.median(
        times.answered[task_id] - times.came[task_id] for task_id in quiet if task_id in times.answered
    )


def _send_every(world: World, per_s: float, app: str) -> list[str]:
    sent: list[str] = []

    def send() -> None:
        sent.append(world.traffic.submit(app=app))
        world.schedule.after(world.random.expovariate(per_s), send)

    world.schedule.after(1.0, send)
    return sent


# A night's batch work holds all slots of a model; now and then a person asks, for that model or for another one.

LARGE = tuple(AskedModel(name, 16 * GIB, 16 * GIB, slots=4, decode_tokens_per_s=40.0) for name in "ab")
NIGHT_TASKS, ANSWER_TOKENS = 120, 400
ASKS_EVERY_S, QUESTIONS = 20.0, 12


@dataclass(frozen=True)
class BesideBatch:
    """How long each question waited for its start, and what was done of the batch work; in virtual seconds."""

    waited_s: list[float]
    load_s: float
    batch_done: int


def beside_batch(model: str, seed: int = 1) -> BesideBatch:
    world = World(
        ONE_HOST.with_(
            seed=seed,
            models=LARGE,
            tokens_out=(ANSWER_TOKENS, ANSWER_TOKENS),
            faults=FaultPlan(late_s=0.002, load_is_slow=0.0),
        )
    )
    times = Times(world)
    world.begin()
    asked: list[str] = []
    night: list[str] = []

    def ask() -> None:
        asked.append(world.traffic.submit(model=model, priority="interactive"))

    def begin() -> None:
        night.extend(world.traffic.submit(model="a", priority="batch") for _ in range(NIGHT_TASKS))

    world.schedule.after(1.0, begin)
    for number in range(QUESTIONS):
        at_s = ASKS_EVERY_S * (1 + number + world.random.random() / 2)
        world.schedule.after(at_s, ask)
    world.schedule.run_until(3000.0)
    return BesideBatch(
        [times.started[task_id] - times.came[task_id] for task_id in asked],
        LARGE[0].claim_mib / HOST.disk_mib_per_s,
        sum(task_id in times.answered for task_id in night),
    )


# Apps of unlike weights that all want more than there is, of six models; the two devices hold two each.

WEIGHTS = {"app0": 0.1, "app1": 0.1, "app2": 0.2, "app3": 0.2, "app4": 0.4}
OPEN_TASKS, FLOODED_TASKS = 12, 200
"""Of each app at any time, and of the first one."""


class DeviceTime:
    """What each app takes of the devices: its runs, and the loads that begin for it, in device-seconds."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._since: dict[str, float] = {}
        self._payers: dict[str, str] = {}
        self._specs: dict[str, WorkerSpec] = {}
        self._runs: dict[str, effects.StartRun] = {}
        self.took_s = dict.fromkeys(WEIGHTS, 0.0)
        world.listeners.append(self._note)

    def _note(self, effect: effects.Effect) -> None:
        now = self._world.schedule.now
        if isinstance(effect, effects.StartWorker):
            self._specs[effect.spec.worker_id] = effect.spec
            load = self._world.brain.state.loads.get(effect.spec.worker_id)
            if load is not None and load.payer is not None:
                self._payers[effect.spec.worker_id], self._since[effect.spec.worker_id] = load.payer, now
        elif isinstance(effect, effects.AttachWorker):
            if (payer := self._payers.pop(effect.worker_id, None)) is not None:
                self._took(payer, effect.worker_id, self._since.pop(effect.worker_id), parts=1)
        elif isinstance(effect, effects.StartRun):
            self._runs[effect.request.task_id], self._since[effect.request.task_id] = effect, now
        elif isinstance(effect, effects.AppendTerminal) and (run := self._runs.pop(effect.task_id, None)):
            slots = self._specs[run.worker_id].slots
            self._took(run.request.app, run.worker_id, self._since.pop(effect.task_id), parts=slots)

    def _took(self, app: str, worker_id: str, since: float, parts: int) -> None:
        (mib,) = self._specs[worker_id].reservation_mib
        self.took_s[app] += (self._world.schedule.now - since) * mib / CARD.total_mib / parts


def shares(seed: int = 1, until_s: float = 1200.0) -> dict[str, float]:
    """The part of all device time that each app got while all always wanted more."""
    plan = _agents_plan(seed, None, 0.0)
    plan = plan.with_(apps=tuple(AppPlan(name, weight, 1.0) for name, weight in WEIGHTS.items()))
    world = World(plan, config=BrainConfig(queue_capacity=100_000))
    time, app_of = DeviceTime(world), dict[str, str]()

    def ask(app: str) -> None:
        app_of[world.traffic.submit(app=app)] = app

    def ask_again(effect: effects.Effect) -> None:
        if isinstance(effect, effects.AppendTerminal):
            app = app_of[effect.task_id]
            world.schedule.after(0.0, lambda: ask(app))

    world.listeners.append(ask_again)
    world.begin()
    for number, app in enumerate(WEIGHTS):
        for _ in range(OPEN_TASKS if number else FLOODED_TASKS):
            world.schedule.after(1.0, lambda app=app: ask(app))  # type: ignore[misc]  # the app of this turn
    world.schedule.run_until(until_s)
    return {app: took_s / sum(time.took_s.values()) for app, took_s in time.took_s.items()}


# Agents take turns among six models; the two devices hold two each.


def _last_used(_: BrainState, worker: Worker) -> float:
    return worker.last_used_at


@contextmanager
def _by_last_use() -> Iterator[None]:
    """The least recently used model leaves as soon as a task waits."""
    with mock.patch.object(eviction, "regret_ms", _last_used):
        yield


@dataclass(frozen=True)
class Policy:
    in_force: Callable[[], AbstractContextManager[None]]
    idle_unload_s: float | None = None


BY_COST = Policy(nullcontext)
LEAST_RECENTLY_USED = Policy(_by_last_use)
IDLE_FOR_A_WHILE = Policy(_by_last_use, idle_unload_s=20.0)


@dataclass(frozen=True)
class Swapping:
    loads_per_1000: float
    median_wait_s: float


def swapping(policy: Policy, requests: int = 1000, seed: int = 1) -> Swapping:
    config = BrainConfig(queue_capacity=100_000)
    world = World(_agents_plan(seed, policy.idle_unload_s, config.min_residency_s), config=config)
    times, loads = Times(world), []
    world.listeners.append(lambda effect: loads.append(effect) if isinstance(effect, effects.StartWorker) else None)
    with policy.in_force():
        world.begin()
        for number in range(AGENTS):
            _agent(world, times, number)
        while len(times.answered) < requests:
            world.schedule.run_until(world.schedule.now + 10.0)
    return Swapping(1000 * len(loads) / len(times.answered), statistics.median(times.waited_s()))


AGENTS = 8
THINKS_S = (0.5, 8.0)


def _agents_plan(seed: int, idle_unload_s: float | None, min_residency_s: float) -> Plan:
    models = tuple(
        AskedModel(
            f"model{number}",
            11 * GIB,
            11 * GIB,
            40.0,
            slots=2,
            idle_unload_s=idle_unload_s,
            popularity=1 / (number + 1),
        )
        for number in range(6)
    )
    cards = (CARD, DevicePlan("GPU-b", "RTX 3090", 24 * GIB, 0, 1.0))
    return ONE_HOST.with_(
        seed=seed, hosts=(HostPlan("garage", cards, 2000.0),), models=models, min_residency_s=min_residency_s
    )


def _agent(world: World, times: Times, number: int) -> None:
    """Asks, waits for the answer, thinks, asks again; most for what is popular."""
    sent: list[str] = []

    def ask() -> None:
        sent.append(world.traffic.submit())

    def listen(effect: effects.Effect) -> None:
        if isinstance(effect, effects.AppendTerminal) and sent and effect.task_id == sent[-1]:
            world.schedule.after(world.random.uniform(*THINKS_S), ask)

    world.listeners.append(listen)
    world.schedule.after(1.0 + number * 0.1, ask)


# What is predicted, and what comes.


@dataclass(frozen=True)
class Judged:
    """`errors`: relative, of predicted starts; `on_time`: (probability, whether it was) of tasks with a deadline."""

    errors: list[float]
    on_time: list[tuple[float, bool]]

    @property
    def median_error(self) -> float:
        return statistics.median(self.errors)

    @property
    def brier(self) -> float:
        return statistics.mean((probability - met) ** 2 for probability, met in self.on_time)

    @property
    def brier_of_base_rate(self) -> float:
        base = statistics.mean(met for _, met in self.on_time)
        return base * (1 - base)


LEARNS_FROM = 50


def predictions(seed: int = 1) -> Judged:
    """A model with more to do than it can, now and then: what was foretold after the first 50 tasks, and what came."""
    world = World(ONE_HOST.with_(seed=seed, tokens_in=(20, 200)))
    times, foretold, on_time = Times(world), {}, []

    def listen(effect: effects.Effect) -> None:
        if isinstance(effect, effects.OpenLog) and effect.predicted_start_ms is not None:
            foretold[effect.request.task_id] = effect.predicted_start_ms / 1000
        elif isinstance(effect, effects.OnTimeJudged):
            on_time.append((effect.probability, effect.met))

    world.listeners.append(listen)
    world.begin()
    _send_in_waves(world, until_s=WAVES * WAVE_S)
    world.schedule.run_until(WAVES * WAVE_S + 60.0)
    judged = list(times.started)[LEARNS_FROM:]
    errors = [
        abs(foretold[task_id] - waited) / max(waited, AT_ONCE_S)
        for task_id in judged
        if task_id in foretold and (waited := times.started[task_id] - times.came[task_id]) is not None
    ]
    return Judged(errors, on_time[LEARNS_FROM:])


WAVES = 40
WAVE_S = 12.0
AT_ONCE_S = 0.1
"""A task that starts within this time did not wait; an error is measured in parts of this time then."""


def _send_in_waves(world: World, until_s: float) -> None:
    """Between hardly anything and three times what can be done; every second task has a deadline, easy or hard."""

    def send() -> None:
        in_wave = world.schedule.now % WAVE_S < WAVE_S / 3
        deadline_s = world.random.uniform(1.0, 12.0) if world.happens(0.5) else None
        world.traffic.submit(deadline_s=deadline_s)
        if world.schedule.now < until_s:
            world.schedule.after(world.random.expovariate(4.0 if in_wave else 0.5), send)

    world.schedule.after(1.0, send)
