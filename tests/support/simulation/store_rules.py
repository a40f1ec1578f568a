"""The store: in force is what it has, and nothing is done for what it does not have."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from llorch.worker_spec import WorkerSpec
from orchestratord.core import effects, events
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.drains import Drain
from orchestratord.core.facts.fleet import Leaving
from orchestratord.core.facts.model import ModelRecord, Origin
from orchestratord.core.facts.records import Record, RecordChange
from orchestratord.core.facts.released import ReleasedDevice
from orchestratord.core.facts.task import TaskRequest
from orchestratord.simulation.violation import Violation

if TYPE_CHECKING:
    from support.simulation.world import World


class StoreRules:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._requests: dict[str, TaskRequest] = {}
        """Durable tasks that the store has not taken yet."""
        self._wanted = {rule.model for rule in world.plan.rules if rule.keep_loaded}
        """Models that may be loaded: rules keep them, or a task that can't be refused any more has asked for them."""
        self._workers: dict[str, tuple[str, WorkerSpec]] = {}
        self._has_to_leave: set[str] = set()
        """Workers that a change has in the wrong place since the store has it."""

    def written(self, changes: Sequence[RecordChange]) -> None:
        for change in changes:
            self._has_to_leave |= {
                worker_id for worker_id, (node_id, spec) in self._workers.items() if _concerns(change, node_id, spec)
            }

    def heard(self, event: events.Event) -> None:
        match event:
            case events.TaskSubmitted(request) if not request.durable:
                self._wanted.add(request.model)
            case events.TaskKept(task_id):
                self._wanted.add(self._requests.pop(task_id).model)
            case events.TaskNotKept(task_id):
                self._requests.pop(task_id, None)

    def wants(self, effect: effects.Effect) -> None:
        match effect:
            case effects.PersistTask(request):
                self._requests[request.task_id] = request
            case effects.PersistChange() if self._world.store.writing is not None:
                self._fail("a second change is to be written before the store has answered for the first")
            case effects.StartRun(request=request) if request.task_id in self._requests:
                self._fail(f"a run is started for {request.task_id}, which the store has not taken")
            case effects.StageModel(_, source):
                self._check_wanted(self._world.model_of_source(source).name)
            case effects.StartWorker(node_id, spec):
                self._workers[spec.worker_id] = node_id, spec
                self._check_wanted(spec.model)
            case effects.StopWorker(_, worker_id, Leaving.CHANGED | Leaving.RELEASED | Leaving.DRAINED as why):
                self._check_leaving(worker_id, why)

    def check(self) -> None:
        state, stored = self._world.brain.state, self._world.store.records
        in_force: list[Record | None] = [
            *(state.catalog.record_of(model.name) for model in self._world.plan.models),
            *(rule for rule in state.assignments.all() if rule.origin is not Origin.FILE),
            *(
                state.released.find((host.node_id, device.device_id))
                for host in self._world.plan.hosts
                for device in host.devices
            ),
            *state.drains.all(),
        ]
        kept = {(type(record), record.record_key): record for record in in_force if record is not None}
        if kept != stored:
            differences = sorted(key for _, key in kept.keys() ^ stored.keys() or kept.keys() & stored.keys())
            self._fail(f"in force is not what the store has: {differences}")

    def _check_wanted(self, model: str) -> None:
        if model not in self._wanted:
            self._fail(f"{model} is loaded before the store has a task that asks for it")

    def _check_leaving(self, worker_id: str, why: Leaving) -> None:
        node_id, spec = self._workers[worker_id]
        is_taken_away = any(
            isinstance(record, Drain | ReleasedDevice) and _is_about(record, node_id, spec)
            for record in self._world.store.records.values()
        )
        if worker_id not in self._has_to_leave and not is_taken_away:
            self._fail(f"{worker_id} is stopped ({why}) before the store has what it has to leave for")

    def _fail(self, what: str) -> NoReturn:
        raise Violation(self._world, what)


def _concerns(change: RecordChange, node_id: str, spec: WorkerSpec) -> bool:
    """Whether a worker may have to leave for it."""
    if isinstance(change.record, Drain | ReleasedDevice):
        return _is_about(change.record, node_id, spec)
    records = (change.before, change.after)
    names = {record.name for record in records if isinstance(record, ModelRecord)}
    return spec.model in names | {record.model for record in records if isinstance(record, Assignment)}


def _is_about(record: Drain | ReleasedDevice, node_id: str, spec: WorkerSpec) -> bool:
    devices = record.device_ids if isinstance(record, Drain) else (record.device_id,)
    return record.node_id == node_id and not set(devices).isdisjoint(spec.device_ids)
