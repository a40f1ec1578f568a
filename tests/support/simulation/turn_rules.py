"""Turns: room is promised once and taken by no other load, and a worker leaves for one load that needs it."""

from typing import TYPE_CHECKING, NoReturn

from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.facts.loads import Load, LoadPhase
from orchestratord.simulation.violation import Violation

if TYPE_CHECKING:
    from support.simulation.world import World

LEAVES_FOR_OTHERS = "evicted"


class TurnRules:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._told: set[str] = set()
        """Workers that were told to end: once more, where that may have got lost."""
        self._ready_at: dict[str, float] = {}
        """By worker: when the brain heard that it is loaded."""
        self._reserved: dict[str, Load] = {}
        """Loads for which workers were to leave, after the last event."""
        self._waiting: set[str] = set()
        """Models that tasks waited for then."""
        self._clock = 0.0

    def heard(self, event: events.Event) -> None:
        if isinstance(event, events.NodeReported | events.NodeRegistered):
            for told in event.snapshot.workers:
                if told.state is WorkerState.READY:
                    self._ready_at.setdefault(told.spec.worker_id, self._world.schedule.now)

    def wants(self, effect: effects.Effect) -> None:
        if isinstance(effect, effects.StopWorker) and effect.worker_id not in self._told:
            self._told.add(effect.worker_id)
            if effect.why == LEAVES_FOR_OTHERS:
                self._evicts(effect.worker_id)

    def check(self) -> None:
        reserved = self._now_reserved()
        for load_id in reserved.keys() - self._reserved.keys():
            self._check_room(reserved[load_id])
        left_for: dict[str, str] = {}
        for load in reserved.values():
            for worker_id in load.plan.evicts if load.plan else ():
                other = left_for.setdefault(worker_id, load.load_id)
                if other != load.load_id:
                    self._fail(f"{worker_id} is to leave for {other} and for {load.load_id}")
        state = self._world.brain.state
        if state.queue.accounts._clock < self._clock:
            self._fail(f"the clock of the accounts went back from {self._clock}")
        self._clock = state.queue.accounts._clock
        self._reserved = reserved
        self._waiting = {model for model in self._world.models if state.queue.has_waiting(model)}

    def _now_reserved(self) -> dict[str, Load]:
        loads = self._world.brain.state.loads.values()
        return {load.load_id: load for load in loads if load.phase is LoadPhase.MAKING_ROOM}

    def _check_room(self, load: Load) -> None:
        """When it is promised; another program may take it afterwards."""
        state = self._world.brain.state
        for key in load.plan.claims if load.plan else ():
            leaving = [worker for worker in state.fleet.workers_on_device(*key) if not worker.serves]
            back_mib = sum(state.ledger.held_by(worker.worker_id, key) for worker in leaving)
            promised_mib = sum(other.plan.claims.get(key, 0) for other in self._now_reserved().values() if other.plan)
            if state.ledger.capacity(key) - state.ledger.held(key) + back_mib < promised_mib:
                self._fail(f"{load.load_id} is promised room on {key} that there will not be")

    def _evicts(self, worker_id: str) -> None:
        """One that was loaded just now leaves for tasks alone: what loads otherwise, a rule or a caller, can wait."""
        for_whom = (*self._reserved.values(), *self._now_reserved().values())
        beneficiaries = {
            load.model for load in for_whom if load.plan and worker_id in {*load.waits_for, *load.plan.evicts}
        }
        if not beneficiaries:
            self._fail(f"{worker_id} leaves for no load")
        loaded_for = self._world.schedule.now - self._ready_at.get(worker_id, self._world.schedule.now)
        state = self._world.brain.state
        waiting = self._waiting | {model for model in beneficiaries if state.queue.has_waiting(model)}
        if loaded_for < self._world.plan.min_residency_s and not beneficiaries & waiting:
            self._fail(
                f"{worker_id} is evicted {loaded_for:.1f} s after it was loaded, for a model that no task waits for"
            )

    def _fail(self, what: str) -> NoReturn:
        raise Violation(self._world, what)
