"""What has to hold after every event, whatever happens.

Each rule keeps its own small account of what the brain was told and what it wanted; none repeats the brain's reckoning.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llorch.errors import Aborted, LlorchError
from orchestratord.core import effects, events
from orchestratord.core.facts.records import RecordChange
from orchestratord.simulation.host import Host
from orchestratord.simulation.process import Process, SimulatedRun
from orchestratord.simulation.violation import Violation
from orchestratord.simulation.watch import Watch
from support.simulation.fairness_rules import FairnessRules
from support.simulation.giving_way_rules import GivingWayRules
from support.simulation.memory_rules import MemoryRules
from support.simulation.placement_rules import PlacementRules
from support.simulation.promise_rules import PromiseRules
from support.simulation.store_rules import StoreRules
from support.simulation.task_rules import TaskRules
from support.simulation.turn_rules import TurnRules

if TYPE_CHECKING:
    from support.simulation.world import World


class Invariants(Watch):
    def __init__(self, world: "World") -> None:
        self._world = world
        self.tasks = TaskRules(world)
        self.memory = MemoryRules(world)
        self.fairness = FairnessRules(world)
        self.placement = PlacementRules(world, self.tasks)
        self.promises = PromiseRules(world)
        self.store = StoreRules(world)
        self.turns = TurnRules(world)
        self.giving_way = GivingWayRules(world)

    def heard(self, event: events.Event) -> None:
        self.tasks.heard(event)
        self.memory.heard(event)
        self.turns.heard(event)
        self.promises.heard(event)
        self.store.heard(event)

    def wants(self, effect: effects.Effect) -> None:
        self.fairness.wants(effect)
        self.tasks.wants(effect)
        self.memory.wants(effect)
        self.placement.wants(effect)
        self.turns.wants(effect)
        self.giving_way.wants(effect)
        self.promises.wants(effect)
        self.store.wants(effect)

    def check(self, event: events.Event) -> None:
        self.tasks.check()
        self.store.check()
        self.fairness.check()
        self.turns.check()
        self.giving_way.check()
        if isinstance(event, events.Tick):
            self.tasks.check_deadlines()

    def refused(self, event: events.Event, error: LlorchError) -> None:
        """Nodes and workers tell what is so; the one thing to refuse of theirs is what comes over an old link."""
        if isinstance(event, _FACTS) and not isinstance(error, Aborted):
            raise Violation(self._world, f"{event} was refused: {error}")

    def run_began(self, process: Process, run: SimulatedRun) -> None:
        self.tasks.run_began(process, run)

    def process_began(self, host: Host, process: Process) -> None:
        self.memory.process_began(host, process)

    def ended_its_worker(self, process: Process, task_id: str) -> None:
        self.tasks.ended_its_worker(process, task_id)

    def written(self, changes: Sequence[RecordChange]) -> None:
        self.store.written(changes)

    def ran_out_of_memory(self, host: Host, process: Process) -> None:
        self.memory.ran_out_of_memory(host, process)

    def all_have_ended(self) -> bool:
        return self.tasks.all_have_ended()

    def at_rest(self) -> None:
        self.tasks.at_rest()
        self.memory.at_rest()
        self.fairness.at_rest()


_FACTS = (
    events.NodeRegistered,
    events.NodeReported,
    events.WorkerAttached,
    events.WorkerSilent,
    events.RunsFound,
    events.AttemptStarted,
    events.AttemptFirstToken,
    events.AttemptEnded,
    events.AttemptUnknown,
    events.LostOutputCounted,
    events.WorkerStartAccepted,
    events.WorkerStartFailed,
    events.ModelStaged,
    events.StagingFailed,
    events.TerminalPersisted,
    events.TaskKept,
    events.TaskNotKept,
    events.ChangeKept,
    events.ChangeNotKept,
    events.Tick,
)
