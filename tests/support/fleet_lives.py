"""Hosts that come, go, are renamed and are taken away from the orchestrator, which is killed in between; at random.

What must hold whatever happens: memory is charged to the workers that there are, on nodes that there are; what is in
force is what the store has; a card that its owner took back stays so, wherever its host is and whatever it is called;
and a task that was accepted for good is there after every start, and never hears of what is only away that it can't be.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from llorch.errors import LlorchError
from llorch.finish_reason import FinishReason
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.effects import Effect
from orchestratord.core.facts.drains import AfterDrain, Drain, DrainPolicy
from orchestratord.core.facts.fleet import Endpoint, EngineFacts, NodeState, Pool, Snapshot, WorkerReported
from orchestratord.core.facts.known_node import KnownNode
from orchestratord.core.facts.model import ModelSpec, Origin
from orchestratord.core.facts.records import Record, RecordChange
from orchestratord.core.facts.released import ReleasedDevice
from orchestratord.core.facts.task import ChoiceEnd, RunResult, TaskError, TaskRequest
from orchestratord.core.state import BrainConfig
from support.brain_driver import BrainDriver, gpu

MODELS = tuple(f"model-{number}" for number in range(3))
CONFIG = BrainConfig(node_lost_s=20, recovery_window_s=30, no_device_grace_s=10, min_residency_s=1)
CARD_MIB = 24 * 1024


@dataclass
class Host:
    """A machine with its pool manager. `session` is empty while the orchestrator hears nothing of it."""

    host_id: str
    name: str
    cards: tuple[str, ...]
    workers: dict[str, WorkerSpec] = field(default_factory=dict)
    session: str = ""
    starts: int = 0
    applied: int = 0

    def snapshot(self) -> Snapshot:
        return Snapshot(
            full=True,
            devices=tuple(gpu(card, CARD_MIB, index=index) for index, card in enumerate(self.cards)),
            workers=tuple(self._reported(spec) for spec in self.workers.values()),
            staged={f"file:/models/{model}.gguf": 4096 for model in MODELS},
            pools=(Pool(f"{self.name}:all", self.name, self.cards),),
            offered={f"of-{self.host_id}": f"dir:{self.host_id}.gguf"},
        )

    def _reported(self, spec: WorkerSpec) -> WorkerReported:
        facts = EngineFacts("sim", "1", spec.slots, spec.context_per_slot, True, False, spec.reservation_mib)
        return WorkerReported(spec, WorkerState.READY, facts, Endpoint(f"{self.host_id}:1", "secret"))


class FleetLives:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311  # a schedule, not a secret
        self.hosts = [Host(f"host-{i}", f"name-{i}", tuple(f"GPU-{i}-{k}" for k in range(1 + i % 2))) for i in range(4)]
        self.kept: dict[tuple[type, str], Record] = {}
        self.accepted: dict[str, TaskRequest] = {}
        self.released: set[str] = set()
        self.failed: list[TaskError] = []
        self._coming: list[events.Event] = []
        self._count = self._lives = 0
        self._now = 100.0
        self._steps: list[tuple[int, Callable[[], None]]] = [
            (30, self._hear_of_something),
            (20, self._time_passes),
            (12, self._register),
            (10, self._report),
            (10, self._submit),
            (6, self._finish),
            (4, self._fall_silent),
            (4, self._release),
            (3, self._resume),
            (3, self._drain),
            (2, self._rename),
            (2, self._forget),
            (1, self._die_and_start_again),
        ]
        self.driver = self._started()
        for model in MODELS:
            self._handle(events.ModelRegistered(ModelSpec(model, f"file:/models/{model}.gguf"), Origin.CALL, "call", 1))

    def step(self) -> None:
        weights = [weight for weight, _ in self._steps]
        (_, step), *_ = self.random.choices(self._steps, weights)
        step()
        self._check()

    def _started(self) -> BrainDriver:
        """Ids are never used twice, as in a real orchestrator."""
        self._lives += 1
        driver = BrainDriver(CONFIG, now=self._now, ids_from=1_000_000 * self._lives)
        self.driver = driver
        self._coming.clear()
        for host in self.hosts:
            host.session = ""
        places = sorted(self.kept, key=lambda place: (place[0].__name__, place[1]))
        self._handle(events.RecordsFound(tuple(self.kept[place] for place in places), round(driver.now * 1000)))
        self._handle(events.RecoveryBegan())
        for request in list(self.accepted.values()):
            self._handle(events.TaskRestored(request, 1.0))
        return driver

    # What may happen.

    def _hear_of_something(self) -> None:
        if self._coming:
            self._handle(self._coming.pop(self.random.randrange(len(self._coming))))

    def _time_passes(self) -> None:
        self._now += self.random.choice([0.05, 0.25, 1.0])
        self.driver.now = self._now
        self._handle(events.Tick())

    def _register(self) -> None:
        """A pool manager that was killed has its workers still, or the machine lost its power and them."""
        host = self.random.choice(self.hosts)
        if self.random.random() < 0.3:
            host.starts, host.applied = host.starts + 1, 0
        if self.random.random() < 0.1:
            host.workers.clear()
        host.session = self._new("link")
        instance = f"{host.host_id}-{host.starts}"
        self._handle(
            events.NodeRegistered(
                host.name,
                host.session,
                instance,
                f"{host.host_id}:9200",
                "0",
                host.snapshot(),
                host.applied,
                host_id=host.host_id,
            )
        )

    def _report(self) -> None:
        host = self.random.choice(self.hosts)
        if host.session:
            self._handle(events.NodeReported(host.name, host.session, host.applied, host.snapshot()))

    def _submit(self) -> None:
        model = self.random.choice([*MODELS, "of-host-1"])
        request = TaskRequest(self._new("task"), model, b"", "digest", 1, durable=self.random.random() < 0.7)
        self._handle(events.TaskSubmitted(request))
        if not request.durable and request.task_id in self.driver.state.tasks:
            self._handle(events.ReaderAttached(request.task_id))

    def _finish(self) -> None:
        if attempts := sorted(self.driver.state.attempts):
            result = RunResult((ChoiceEnd(0, FinishReason.EOS, 3),), tokens_in=5, tokens_out=3)
            self._handle(events.AttemptEnded(self.random.choice(attempts), result))

    def _fall_silent(self) -> None:
        self.random.choice(self.hosts).session = ""

    def _release(self) -> None:
        host = self.random.choice(self.hosts)
        self._handle(events.DeviceReleaseAsked(host.name, host.cards[:1]))

    def _resume(self) -> None:
        host = self.random.choice(self.hosts)
        self._handle(events.DeviceResumeAsked(host.name, host.cards))

    def _drain(self) -> None:
        policy, after = self.random.choice(list(DrainPolicy)), self.random.choice(list(AfterDrain))
        self._handle(events.PoolDrainAsked(f"{self.random.choice(self.hosts).name}:all", 3.0, policy, after))

    def _rename(self) -> None:
        """Its pool manager is started again for that; what the orchestrator says to the former name reaches nothing."""
        host = self.random.choice(self.hosts)
        host.name, host.session, host.starts, host.applied = self._new("name"), "", host.starts + 1, 0

    def _forget(self) -> None:
        """An operator forgets a node that is away; not one whose card was taken back, which would be forgotten, too."""
        known = sorted(self.driver.state.fleet.nodes)
        released = {record.node_id for record in self.kept.values() if isinstance(record, ReleasedDevice)}
        if nodes := [node_id for node_id in known if node_id not in released]:
            self._handle(events.NodeForgotten(self.random.choice(nodes)))

    def _die_and_start_again(self) -> None:
        self._started()

    # What comes of it.

    def _handle(self, event: events.Event) -> None:
        try:
            wanted = self.driver.handle(event)
        except LlorchError:
            return
        for effect in wanted:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        self._write(effect)
        self._do(effect)
        match effect:
            case effects.StageModel(node_id, source):
                self._coming.append(events.ModelStaged(node_id, source, 4096))
            case effects.AttachWorker(worker_id):
                self._coming.append(events.WorkerAttached(worker_id))
            case effects.StartRun(_, attempt_id):
                self._coming.append(events.AttemptStarted(attempt_id))
            case effects.CancelRun(_, attempt_id):
                self._coming.append(events.AttemptUnknown(attempt_id))

    def _write(self, effect: Effect) -> None:
        match effect:
            case effects.PersistRecord(before, after):
                self._keep(RecordChange(before, after))
            case effects.PersistChange(changes):
                for change in changes:
                    self._keep(change)
                    if isinstance(change.record, ReleasedDevice):
                        (self.released.add if change.after else self.released.discard)(change.record.device_id)
            case effects.PersistTask(request):
                self.accepted[request.task_id] = request
            case effects.PersistStop(task_id):
                self.accepted.pop(task_id)
            case effects.PersistTerminal(task_id, terminal):
                self.accepted.pop(task_id, None)
                self._coming.append(events.TerminalPersisted(task_id))
                if isinstance(terminal, TaskError):
                    self.failed.append(terminal)

    def _do(self, effect: Effect) -> None:
        """What reaches the host, if it is connected."""
        match effect:
            case effects.StartWorker(node_id, spec) if host := self._connected(node_id):
                host.applied += 1
                host.workers[spec.worker_id] = spec
                self._coming.append(events.WorkerStartAccepted(spec.worker_id, host.applied))
            case effects.StopWorker(node_id, worker_id) if host := self._connected(node_id):
                host.workers.pop(worker_id, None)

    def _keep(self, change: RecordChange) -> None:
        place = (type(change.record), change.record.record_key)
        self.kept.pop(place, None)
        if change.after is not None:
            self.kept[place] = change.after

    def _connected(self, node_id: str) -> Host | None:
        return next((host for host in self.hosts if host.session and host.name == node_id), None)

    def _new(self, what: str) -> str:
        self._count += 1
        return f"{what}-new-{self._count}"

    # What must hold.

    def _check(self) -> None:
        state = self.driver.state
        self._check_memory()
        assert self.accepted.keys() <= state.tasks.keys(), "an accepted task is lost"
        assert self._kept_of(KnownNode) == set(state.fleet.nodes)
        assert self._kept_of(Drain) == {drain.pool_id for drain in state.drains.all()}
        in_force = {f"{node_id}/{device_id}" for node_id, device_id in state.released._by_key}
        assert self._kept_of(ReleasedDevice) == in_force
        drained = {card for drain in state.drains.all() for card in drain.device_ids}
        for host in self.hosts:
            node = state.fleet.nodes.get(host.name)
            if node is not None and node.session == host.session and node.state is NodeState.READY:
                for card in host.cards:
                    key = host.name, card
                    assert (key in state.released) is (card in self.released), f"{card} of {host.name}: released"
                    assert state.drains.covers(key) is (card in drained), f"{card} of {host.name}: drained"
        assert not [error for error in self.failed if not error.retryable], "what is only away was called impossible"

    def _check_memory(self) -> None:
        fleet = self.driver.state.fleet
        for (node_id, device_id), account in self.driver.state.ledger._accounts.items():
            assert account.held_mib == sum(account.held.values()) <= CARD_MIB, f"{device_id} of {node_id}"
            for worker_id in account.held:
                assert fleet.workers[worker_id].node_id == node_id, f"{worker_id} is charged to {node_id}"
        assert all(worker.node_id in fleet.nodes for worker in fleet.workers.values())

    def _kept_of(self, kind: type) -> set[str]:
        return {key for of_kind, key in self.kept if of_kind is kind}
