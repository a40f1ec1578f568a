"""The world of one plan: the brain in the middle, everything else around it."""

import hashlib
from collections.abc import Callable, Iterable
from itertools import count
from random import Random
from typing import Any

from llorch.errors import LlorchError
from orchestratord.core import effects, events
from orchestratord.core.brain import Brain
from orchestratord.core.state import BrainConfig
from orchestratord.simulation.host import Host
from orchestratord.simulation.plan import ModelPlan, WorldPlan
from orchestratord.simulation.pool_manager import PoolManager
from orchestratord.simulation.process import Process
from orchestratord.simulation.schedule import Schedule
from orchestratord.simulation.store import SimulatedStore
from orchestratord.simulation.task_logs import TaskLogs
from orchestratord.simulation.true_size import TrueSize
from orchestratord.simulation.watch import Watch
from orchestratord.simulation.worker_link import SimulatedLink

TICK_S = 0.5
DUPLICATE_AFTER_S = (0.0, 1.0, 4.0)


class World:
    """`settings` are the models, apps and rules that the orchestrator has at its start. `work` says of each task what
    it costs; it has to be there before the task is submitted.
    """

    def __init__(
        self, plan: WorldPlan, config: BrainConfig, settings: Iterable[events.Event], *, trace: bool = False
    ) -> None:
        numbers = count(1)
        self.plan = plan
        self.settings = tuple(settings)
        self.random = Random(plan.seed)  # noqa: S311  # a schedule, not a secret
        self.schedule = Schedule()
        self.models = {model.name: model for model in plan.models}
        self.brain = Brain(config, lambda prefix: f"{prefix}-{next(numbers)}")
        self.managers = {host.node_id: PoolManager(self, Host(host)) for host in plan.hosts}
        self.links: dict[str, SimulatedLink] = {}
        self.store = SimulatedStore(self)
        self.logs = TaskLogs(self)
        self.work: dict[str, TrueSize] = {}
        self.watch = Watch()
        self.is_disturbed = True
        """False where all that has begun is to end well."""
        self.listeners: list[Callable[[effects.Effect], object]] = []
        """Each is called with every effect, before it is carried out."""
        self.events = 0
        self.refused = 0
        self._trace = hashlib.sha256() if trace else None
        self._numbers = count(1)

    def begin(self) -> None:
        for setting in self.settings:
            self.ask(setting)
        self.store.is_instant = False
        for manager in self.managers.values():
            manager.connect()
        self.schedule.after(TICK_S, self._tick)

    def count_lost_output(self, effect: effects.CountLostOutput) -> None:
        tokens = self.logs.count_lost(effect)
        self.schedule.after(0, lambda: self.tell(events.LostOutputCounted(effect.attempt_id, tokens)))

    def _tick(self) -> None:
        self.tell(events.Tick())
        self.schedule.after(TICK_S, self._tick)

    # Between the brain and the rest.

    def tell(self, event: events.Event) -> bool:
        """As `ask`; False if the brain refused."""
        try:
            self.ask(event)
        except LlorchError as error:
            self.refused += 1
            self.watch.refused(event, error)
            return False
        return True

    def ask(self, event: events.Event) -> None:
        """Hand an event to the brain, and carry out what it wants; everything is looked at. Raises its refusals."""
        self.events += 1
        wanted = self.brain.handle(event, self.schedule.now).effects
        self.watch.heard(event)
        for effect in wanted:
            self.watch.wants(effect)
            for listen in self.listeners:
                listen(effect)
            if perform := _PERFORM.get(type(effect)):
                perform(self, effect)
        self.watch.check(event)
        if self._trace is not None:
            self._trace.update(repr((self.schedule.now, wanted)).encode())

    def tell_perhaps_twice(self, event: events.Event) -> None:
        """Answers of calls and frames of workers may come again, right away or much later."""
        self.tell(event)
        if self.happens(self.plan.faults.duplicate):
            self.schedule.after(self.random.choice(DUPLICATE_AFTER_S), lambda: self.tell(event))

    def digest(self) -> str:
        """Of everything that the brain wanted, in order and with times; needs `trace`."""
        assert self._trace is not None
        return self._trace.hexdigest()

    # What the parts ask for.

    def happens(self, chance: float) -> bool:
        return bool(chance) and self.random.random() < chance

    def delay_s(self) -> float:
        late_s = self.plan.faults.late_s
        return late_s * self.random.random() if late_s else 0.0

    def next_number(self) -> int:
        return next(self._numbers)

    def model_of_source(self, source: str) -> ModelPlan:
        return self.models[source.removeprefix("file:/models/").removesuffix(".gguf")]

    def tokens_of(self, task_id: str) -> tuple[int, int]:
        work = self.work[task_id]
        return work.tokens_in, work.tokens_out

    def link_of(self, process: Process) -> SimulatedLink:
        link = self.links.get(process.worker_id)
        if link is None or link.process is not process:
            link = self.links[process.worker_id] = SimulatedLink(self, process)
        return link

    def start_run(self, effect: effects.StartRun) -> None:
        self.logs.begin(effect)
        self.links[effect.worker_id].start_run(effect)

    def cancel_run(self, effect: effects.CancelRun) -> None:
        if not effect.keeps_output:
            self.logs.end_attempt(effect.attempt_id)
        self.links[effect.worker_id].cancel_run(effect.attempt_id)

    def attach(self, worker_id: str) -> None:
        for manager in self.managers.values():
            if process := manager.host.processes.get(worker_id):
                self.link_of(process).attach()
                return

    def detach(self, worker_id: str) -> None:
        if link := self.links.get(worker_id):
            link.detach()

    def persist_terminal(self, effect: effects.PersistTerminal) -> None:
        persisted = events.TerminalPersisted(effect.task_id)
        self.schedule.after(self.delay_s(), lambda: self.tell_perhaps_twice(persisted))


ONLY_TOLD: frozenset[type] = frozenset(
    {
        effects.StartPredicted,
        effects.AnnouncePlacement,
        effects.Narrate,
        effects.WarnOfNode,
        effects.LeaveNode,
        effects.ForgetSavedSession,
        effects.ForgetAllSavedSessions,
        effects.PersistPromise,
        effects.PersistStop,
        effects.AttemptLost,
        effects.RunGaveWay,
        effects.TokensUsed,
        effects.PredictionJudged,
        effects.OnTimeJudged,
    }
)
"""Effects after which the world is as it was before, where no host saves sessions; they are looked at all
the same.
"""

_PERFORM: dict[type, Callable[[World, Any], None]] = {
    effects.StageModel: lambda world, effect: world.managers[effect.node_id].stage(effect),
    effects.DeleteStagedModel: lambda world, effect: world.managers[effect.node_id].delete_staged(effect),
    effects.StartWorker: lambda world, effect: world.managers[effect.node_id].start(effect),
    effects.StopWorker: lambda world, effect: world.managers[effect.node_id].stop(effect),
    effects.AttachWorker: lambda world, effect: world.attach(effect.worker_id),
    effects.DetachWorker: lambda world, effect: world.detach(effect.worker_id),
    effects.OpenLog: lambda world, effect: world.logs.open(effect.request.task_id),
    effects.AppendTerminal: lambda world, effect: world.logs.ended(effect),
    effects.ForgetTask: lambda world, effect: world.logs.forget(effect.task_id),
    effects.WatchOutput: lambda world, effect: world.logs.watch(effect),
    effects.StartRun: World.start_run,
    effects.CancelRun: World.cancel_run,
    effects.CountLostOutput: lambda world, effect: world.count_lost_output(effect),
    effects.ReleaseRuns: lambda world, effect: world.links[effect.worker_id].release_runs(effect.attempt_ids),
    effects.PersistTask: lambda world, effect: world.store.save_task(effect),
    effects.PersistRecord: lambda world, effect: world.store.save_record(effect),
    effects.PersistChange: lambda world, effect: world.store.save_change(effect),
    effects.PersistTerminal: World.persist_terminal,
}
PERFORMED = frozenset(_PERFORM)
