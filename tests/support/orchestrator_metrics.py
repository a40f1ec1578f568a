"""An orchestrator's metrics after something of everything has happened."""

from dataclasses import dataclass, field

from llama_orch.v2 import device_pb2
from llorch.background import TaskSupervisor
from llorch.errors import LlorchError
from orchestratord.core import effects, events
from orchestratord.core.brain import Brain
from orchestratord.core.effects import Effect
from orchestratord.core.facts.attempt import Loss
from orchestratord.core.facts.decision import DecisionRecord, Outcome
from orchestratord.core.facts.fleet import Leaving
from orchestratord.metrics.collector import OrchestratorMetrics
from orchestratord.metrics.watcher import Watcher
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.keeper import Keeper
from support.brain_driver import BrainDriver, gpu
from support.manual_clock import ManualClock
from support.memory_store import MemoryStore


@dataclass
class WatchedDriver(BrainDriver):
    """A driver whose every event is watched; `emit` is for what the brain says seldom."""

    watcher: Watcher = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.watcher = Watcher(self.state)

    def handle(self, event: events.Event) -> list[Effect]:
        try:
            new = super().handle(event)
        except LlorchError as error:
            self.watcher.observe(event, (), error, True)
            raise
        self.watcher.observe(event, new, None, True)
        return new

    def emit(self, *results: Effect) -> None:
        self.watcher.observe(events.Tick(), results, None, False)

    def metrics(self) -> OrchestratorMetrics:
        clock = ManualClock(now=self.now)
        owner = BrainOwner(Brain(self.config, lambda prefix: prefix), clock)
        owner._brain = self.brain
        keeper = Keeper(MemoryStore(), owner.post, clock, TaskSupervisor("test"))
        return OrchestratorMetrics(owner, keeper, self.watcher)


def orchestrator_with_everything() -> OrchestratorMetrics:
    driver = WatchedDriver()
    driver.add_model(slots=2, context=4096, vram_claim_mib=4096)
    driver.add_node("garage", gpu(report=_report()))
    task_id = driver.submit(deadline_s=60.0)
    driver.load()
    start = driver.last(effects.StartRun)
    driver.advance(0.5)
    driver.handle(events.AttemptFirstToken(start.attempt_id))
    driver.finish_attempt(start.attempt_id)
    assert driver.task(task_id).is_finished
    driver.emit(
        effects.PersistRecord(None, DecisionRecord("decision-1", "coder", Outcome.CHOSEN, 1, considered=3)),
        effects.PredictionJudged("start", 90.0, 100.0),
        effects.OnTimeJudged(0.9, met=True),
        effects.AttemptLost(task_id, "coder", Loss.EXIT),
        effects.RunGaveWay("coder", "batch"),
        effects.StopWorker("garage", "worker-0", Leaving.IDLE),
    )
    return driver.metrics()


def _report() -> device_pb2.Device:
    return device_pb2.Device(
        device_id="GPU-1",
        memory_used_mib=100,
        utilization_percent=50,
        temperature_c=60,
        power_w=200,
        ecc_errors=0,
        throttled=True,
    )
