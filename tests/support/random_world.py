"""A world around the brain that does anything at any time, from one seed; time is virtual.

Nodes come, go and report late; workers load, fail, crash and fall silent; clients submit, cancel and leave; answers to
effects arrive in any order or say no. After every event the invariants are checked. `settle` heals the world: then
every task has to end.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from llorch.errors import LlorchError, Reason
from llorch.finish_reason import FinishReason
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.facts.fleet import Endpoint, EngineFacts, Snapshot, WorkerReported
from orchestratord.core.facts.loads import LoadPhase
from orchestratord.core.facts.model import ModelSpec, Origin
from orchestratord.core.facts.records import Record, RecordChange
from orchestratord.core.facts.task import ChoiceEnd, RunResult, TaskError, TaskRequest, TaskState
from orchestratord.core.state import BrainConfig
from support.brain_driver import BrainDriver, gpu

NODES = ("attic", "cellar")
MODELS = ("coder", "writer", "small")
DEVICE_MIB = 12_000
SETTLE_STEPS = 600
TICK_S = 0.25


@dataclass
class Process:
    """A worker process as it really is; the brain knows only what was reported."""

    node_id: str
    spec: WorkerSpec
    state: WorkerState = WorkerState.STARTING


@dataclass
class RandomWorld:
    seed: int
    pending: list[events.Event] = field(default_factory=list)
    """What the world has not told the brain yet."""
    processes: dict[str, Process] = field(default_factory=dict)
    links: set[str] = field(default_factory=set)
    streams: dict[str, bool] = field(default_factory=dict)
    """By task: whether its terminal was shown."""
    stored: dict[str, Record | None] = field(default_factory=dict)
    """By model: what the store has of it."""
    writing: tuple[RecordChange, ...] = ()
    """The change that the store has not answered for."""
    sessions: dict[str, str] = field(default_factory=dict)
    instances: dict[str, str] = field(default_factory=dict)
    commands: int = 0
    tasks: int = 0

    def __post_init__(self) -> None:
        self.random = Random(self.seed)  # noqa: S311  # a schedule, not a secret
        retained = self.random.choice([1, 5, 50])
        config = BrainConfig(queue_capacity=20, tasks_retained=retained, task_retention_s=20, no_device_grace_s=10)
        self.driver = BrainDriver(config)
        for model in MODELS:
            self.driver.add_model(model, slots=2, vram_claim_mib=self.random.choice([5000, 9000, 30_000]))
            self.stored[model] = self.driver.state.catalog.record_of(model)
        for node_id in NODES:
            self.report(node_id, registers=True)

    def tell(self, event: events.Event) -> None:
        """Hand an event to the brain, carry out its effects, and check the invariants. Refusals are normal."""
        if isinstance(event, events.ChangeKept):
            self.stored |= {change.record.record_key: change.after for change in self.writing}
        if isinstance(event, events.ChangeKept | events.ChangeNotKept):
            self.writing = ()
        try:
            wanted = self.driver.brain.handle(event, self.driver.now).effects
        except LlorchError:
            return
        for effect in wanted:
            _PERFORM.get(type(effect), _nothing)(self, effect)
        self.check()

    def step(self) -> None:
        """Something happens; telling what is pending is as likely as anything else together."""
        if self.pending and self.random.random() < 0.3:
            self.tell(self.pending.pop(self.random.randrange(len(self.pending))))
        else:
            self.random.choices(_HAPPENINGS, _WEIGHTS)[0](self)

    def settle(self) -> None:
        """From now on everything works and answers; time passes."""
        for node_id in NODES:
            self.report(node_id, registers=True)
        for number in range(SETTLE_STEPS):
            self.driver.now += TICK_S
            while self.pending:
                self.tell(self.pending.pop(0))
            self._let_processes_go_on()
            for attempt_id in list(self.driver.state.attempts):
                self.tell(events.AttemptEnded(attempt_id, _answer()))
            for node_id in NODES:
                self.report(node_id, is_full=number % 120 == 0)
            self.tell(events.Tick())

    def report(self, node_id: str, *, is_full: bool = False, registers: bool = False) -> None:
        here = {worker_id: process for worker_id, process in self.processes.items() if process.node_id == node_id}
        workers = tuple(self._reported(process) for process in here.values())
        for worker_id, process in here.items():
            if process.state is WorkerState.EXITED:
                del self.processes[worker_id]
        devices = (gpu(f"GPU-{node_id}", total_mib=DEVICE_MIB),)
        snapshot = Snapshot(full=is_full or registers, devices=devices, workers=workers)
        if registers:
            session = self.sessions[node_id] = f"link-{self.random.random()}"
            instance = self.instances.setdefault(node_id, "first")
            self.tell(
                events.NodeRegistered(
                    node_id=node_id,
                    session=session,
                    address=f"{node_id}:1",
                    version="0",
                    snapshot=snapshot,
                    instance_id=instance,
                    applied_command_seq=self.commands,
                )
            )
        elif node_id in self.sessions:
            self.tell(events.NodeReported(node_id, self.sessions[node_id], self.commands, snapshot))

    def check(self) -> None:
        """What has to hold at every moment."""
        state = self.driver.state
        for name, record in self.stored.items():
            assert state.catalog.record_of(name) == record, "in force is what is stored"
        for worker in state.fleet.workers.values():
            assert len(worker.attempts) <= (worker.engine.slots if worker.engine else 0), "a slot was used twice"
            assert all(state.attempts[attempt_id].worker_id == worker.worker_id for attempt_id in worker.attempts)
        for attempt in state.attempts.values():
            assert attempt.attempt_id in state.fleet.workers[attempt.worker_id].attempts, "an attempt without its slot"
            assert not attempt.ended
        for task in state.tasks.values():
            assert task.task_id in self.streams
            assert (task.state is TaskState.QUEUED) == (task.task_id in state.queue), "queued is what is in the queue"
            assert task.state is not TaskState.RUNNING or (task.attempt and not task.attempt.ended)
        for node_id in NODES:
            key = (node_id, f"GPU-{node_id}")
            assert state.ledger.held(key) <= DEVICE_MIB, "memory was over-committed"
            assert set(state.ledger.loads_on(key)) <= set(state.fleet.workers), "memory is held by no worker"
        for load in state.loads.values():
            assert (load.phase is LoadPhase.STARTING) == (load.load_id in state.fleet.workers)
            assert load.phase is not LoadPhase.MAKING_ROOM or load.waits_for, "a load waits for no worker"

    def _let_processes_go_on(self) -> None:
        for process in self.processes.values():
            if process.state is WorkerState.STARTING:
                process.state = WorkerState.READY
            elif process.state is WorkerState.STOPPING:
                process.state = WorkerState.EXITED
        for worker_id in sorted(self.links):
            if not self.driver.state.fleet.workers[worker_id].attached:
                self.tell(events.WorkerAttached(worker_id))

    def _reported(self, process: Process) -> WorkerReported:
        spec, failed = process.spec, process.state is WorkerState.EXITED and self.random.random() < 0.5
        if process.state not in (WorkerState.READY, WorkerState.STOPPING):
            failure = (Reason.ENGINE_FAILED, "it crashed") if failed else None
            return WorkerReported(spec, process.state, failure=failure)
        facts = EngineFacts("sim", "1", spec.slots, 4096, True, False, spec.reservation_mib)
        return WorkerReported(spec, process.state, facts, Endpoint("x:1", "secret"))


def _answer() -> RunResult:
    return RunResult((ChoiceEnd(0, FinishReason.EOS, 1),))


# What the world does about effects.


def _open_log(world: RandomWorld, effect: effects.OpenLog) -> None:
    assert effect.request.task_id not in world.streams
    world.streams[effect.request.task_id] = False


def _append_terminal(world: RandomWorld, effect: effects.AppendTerminal) -> None:
    assert not world.streams[effect.task_id], "a second terminal"
    world.streams[effect.task_id] = True


def _forget(world: RandomWorld, effect: effects.ForgetTask) -> None:
    assert world.streams.pop(effect.task_id), "a task was forgotten before its readers had its terminal"


def _persist_task(world: RandomWorld, effect: effects.PersistTask) -> None:
    task_id = effect.request.task_id
    is_kept = world.random.random() < 0.9
    world.pending.append(events.TaskKept(task_id) if is_kept else events.TaskNotKept(task_id, "the disk is full"))


def _persist_change(world: RandomWorld, effect: effects.PersistChange) -> None:
    assert not world.writing, "a second change while the store has not answered for the first"
    world.writing = effect.changes
    world.pending.append(events.ChangeKept() if world.random.random() < 0.7 else events.ChangeNotKept())


def _persist(world: RandomWorld, effect: effects.PersistTerminal) -> None:
    world.pending.append(events.TerminalPersisted(effect.task_id))


def _persist_stop(world: RandomWorld, effect: effects.PersistStop) -> None:
    assert not world.streams[effect.task_id], "a task that has ended was stopped"


def _attach(world: RandomWorld, effect: effects.AttachWorker) -> None:
    assert effect.worker_id not in world.links
    world.links.add(effect.worker_id)
    world.pending.append(events.WorkerAttached(effect.worker_id))


def _detach(world: RandomWorld, effect: effects.DetachWorker) -> None:
    world.links.discard(effect.worker_id)


def _start_run(world: RandomWorld, effect: effects.StartRun) -> None:
    assert effect.worker_id in world.links
    assert not world.streams[effect.request.task_id], "a run was started for a task that has ended"


def _cancel_run(world: RandomWorld, effect: effects.CancelRun) -> None:
    assert effect.worker_id in world.links
    world.pending.append(events.AttemptEnded(effect.attempt_id, TaskError(Reason.INTERNAL, "cancelled")))


def _release_runs(world: RandomWorld, effect: effects.ReleaseRuns) -> None:
    assert effect.worker_id in world.links


def _stage(world: RandomWorld, effect: effects.StageModel) -> None:
    if world.random.random() < 0.8:
        world.pending.append(events.ModelStaged(effect.node_id, effect.source, 100))
    else:
        reason = world.random.choice([Reason.MODEL_FILE_MISSING, Reason.DRAINING])
        world.pending.append(events.StagingFailed(effect.node_id, effect.source, reason, "no"))


def _start_worker(world: RandomWorld, effect: effects.StartWorker) -> None:
    world.commands += 1
    worker_id = effect.spec.worker_id
    if world.random.random() < 0.85:
        world.processes[worker_id] = Process(effect.node_id, effect.spec)
        world.pending.append(events.WorkerStartAccepted(worker_id, world.commands))
    else:
        reason = world.random.choice([Reason.MODEL_LOAD_FAILED, Reason.DRAINING])
        world.pending.append(events.WorkerStartFailed(worker_id, reason, "no"))


def _stop_worker(world: RandomWorld, effect: effects.StopWorker) -> None:
    """The command gets lost now and then."""
    if effect.worker_id in world.processes and world.random.random() < 0.8:
        world.processes[effect.worker_id].state = WorkerState.STOPPING


def _nothing(_world: RandomWorld, _effect: object) -> None:
    pass


_PERFORM: dict[type, Callable[..., None]] = {
    effects.OpenLog: _open_log,
    effects.AppendTerminal: _append_terminal,
    effects.ForgetTask: _forget,
    effects.PersistTask: _persist_task,
    effects.PersistChange: _persist_change,
    effects.PersistStop: _persist_stop,
    effects.PersistTerminal: _persist,
    effects.AttachWorker: _attach,
    effects.DetachWorker: _detach,
    effects.StartRun: _start_run,
    effects.CancelRun: _cancel_run,
    effects.ReleaseRuns: _release_runs,
    effects.StageModel: _stage,
    effects.StartWorker: _start_worker,
    effects.StopWorker: _stop_worker,
}


# What happens by itself.


def _time_passes(world: RandomWorld) -> None:
    world.driver.now += world.random.choice([0.25, 0.25, 0.9])
    world.tell(events.Tick())


def _node_reports(world: RandomWorld) -> None:
    world.report(world.random.choice(NODES), is_full=world.random.random() < 0.3)


def _node_comes_again(world: RandomWorld) -> None:
    """By a new link, or as a new process that has lost its workers."""
    node_id = world.random.choice(NODES)
    if world.random.random() < 0.5:
        world.instances[node_id] = str(world.random.random())
        world.processes = {name: process for name, process in world.processes.items() if process.node_id != node_id}
    world.report(node_id, registers=True)


def _node_falls_silent(world: RandomWorld) -> None:
    world.sessions.pop(world.random.choice(NODES), None)


def _node_is_forgotten(world: RandomWorld) -> None:
    world.tell(events.NodeForgotten(world.random.choice(NODES)))


def _task_comes(world: RandomWorld) -> None:
    world.tasks += 1
    request = TaskRequest(
        task_id=f"task-{world.tasks}",
        model=world.random.choice(MODELS),
        payload=b"",
        content_digest="same",
        seed=1,
        priority=world.random.choice(["interactive", "batch"]),
        deadline_s=world.random.choice([None, None, 5.0]),
        durable=world.random.random() < 0.5,
        request_id=world.random.choice(["", "r1", "r2"]),
    )
    world.tell(events.TaskSubmitted(request))
    if not request.durable and request.task_id in world.driver.state.tasks:
        world.tell(events.ReaderAttached(request.task_id))


def _task_is_cancelled(world: RandomWorld) -> None:
    if tasks := list(world.driver.state.tasks):
        world.tell(events.TaskCancelled(world.random.choice(tasks)))


def _reader_leaves(world: RandomWorld) -> None:
    if read := [task for task in world.driver.state.tasks.values() if task.readers]:
        world.tell(events.ReaderLeft(world.random.choice(read).task_id))


def _worker_goes_on(world: RandomWorld) -> None:
    if not world.processes:
        return
    process = world.random.choice(list(world.processes.values()))
    if process.state is WorkerState.STARTING:
        process.state = world.random.choice([WorkerState.READY] * 4 + [WorkerState.EXITED])
    elif process.state is WorkerState.STOPPING:
        process.state = WorkerState.EXITED
    elif world.random.random() < 0.15:
        process.state = world.random.choice([WorkerState.EXITED, WorkerState.STOPPING])


def _link_wavers(world: RandomWorld) -> None:
    if world.links:
        worker_id = world.random.choice(sorted(world.links))
        kind = events.WorkerSilent if world.random.random() < 0.3 else events.WorkerAttached
        world.tell(kind(worker_id))


def _run_goes_on(world: RandomWorld) -> None:
    if not world.driver.state.attempts:
        return
    attempt_id = world.random.choice(list(world.driver.state.attempts))
    luck = world.random.random()
    if luck < 0.5:
        world.tell(events.AttemptEnded(attempt_id, _answer()))
    elif luck < 0.6:
        world.tell(events.AttemptUnknown(attempt_id))
    else:
        world.tell(events.AttemptStarted(attempt_id))
        world.tell(events.AttemptFirstToken(attempt_id))


def _worker_is_stopped(world: RandomWorld) -> None:
    if workers := list(world.driver.state.fleet.workers):
        world.tell(events.WorkerStopAsked(world.random.choice(workers), world.random.random() < 0.5))


def _model_changes(world: RandomWorld) -> None:
    source = f"file:/models/{world.random.randrange(4)}.gguf"
    claim = world.random.choice([5000, 9000])
    spec = ModelSpec(world.random.choice(MODELS), source, slots=2, vram_claim_mib=claim)
    world.tell(events.ModelRegistered(spec, Origin.CALL, "a test"))


def _model_is_deleted(world: RandomWorld) -> None:
    world.tell(events.ModelDeleted(world.random.choice(MODELS)))


_CHANCES: dict[Callable[[RandomWorld], None], float] = {
    _time_passes: 1,
    _node_reports: 1,
    _node_comes_again: 0.2,
    _node_falls_silent: 0.05,
    _node_is_forgotten: 0.1,
    _task_comes: 2,
    _task_is_cancelled: 1,
    _reader_leaves: 1,
    _worker_goes_on: 0.6,
    _link_wavers: 1,
    _run_goes_on: 2,
    _worker_is_stopped: 0.2,
    _model_changes: 0.1,
    _model_is_deleted: 0.05,
}
_HAPPENINGS = list(_CHANCES)
_WEIGHTS = list(_CHANCES.values())
