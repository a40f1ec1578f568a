"""Things of every kind that come to the brain, are used, and go again: what is left of them afterwards.

Each function of `LIVES` is one such life, told by a number from all others of its kind.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from llorch.assignment_mode import Mode
from llorch.errors import Reason
from llorch.finish_reason import FinishReason
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.brain import Handled
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.decision import DECISIONS_KEPT
from orchestratord.core.facts.drains import AfterDrain
from orchestratord.core.facts.fleet import Device, Endpoint, EngineFacts, Pool, Snapshot, WorkerReported
from orchestratord.core.facts.model import ModelSpec, ModelState, Origin
from orchestratord.core.facts.records import Record, RecordChange
from orchestratord.core.facts.rules import Wishes
from orchestratord.core.facts.task import ChoiceEnd, RunResult
from orchestratord.core.learnt.answer_lengths import ANSWERS_REMEMBERED
from orchestratord.core.learnt.drain_rate import REMEMBERED
from orchestratord.core.lives.devices import RELEASES_OF_FORGOTTEN_KEPT
from orchestratord.core.state import BrainConfig
from orchestratord.metrics.tallies import MOST_VALUES
from orchestratord.metrics.watcher import Watcher
from orchestratord.metrics.window import BUCKETS
from orchestratord.store.kinds import kind_of
from support.brain_driver import BrainDriver, gpu, gpu_of
from support.collections_in import sizes_in

CONFIG = BrainConfig(
    session_ttl_s=5,
    task_retention_s=5,
    min_residency_s=1,
    replica_idle_s=5,
    node_lost_s=10,
    no_device_grace_s=5,
    recovery_window_s=5,
    load_retry_s=1,
    load_retry_max_s=5,
)
HOST = "garage"
CARDS = (gpu("GPU-1"), gpu("GPU-2", index=1))
POOL = Pool("garage:all", HOST, ("GPU-1", "GPU-2"))
LONG_S = 30 * 24 * 3600.0
"""No time that is so far away comes in these lives."""


@dataclass
class ShortLives(BrainDriver):
    """A host and a model that stay, around the brain; the host does at once what it is told to.

    `fails` are sources and models that it can't stage or load.
    """

    config: BrainConfig = CONFIG
    rows: dict[str, dict[str, Record]] = field(default_factory=dict)
    there: dict[str, tuple[str, WorkerSpec]] = field(default_factory=dict)
    fails: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.watcher = Watcher(self.state)
        self._to_do: deque[effects.Effect] = deque()
        self.add_node(HOST, *CARDS, staged={"file:/models/staying.gguf": 1000}, pools=(POOL,))
        self.add_model("staying", size_mib=1000)

    def sizes(self) -> Counter[str]:
        """Of what the brain holds, of what the store has, and of what is counted for metrics."""
        stored = Counter({f"stored {kind}": len(rows) for kind, rows in self.rows.items()})
        counted = Counter({f"metrics {path}": size for path, size in sizes_in(self.watcher.tallies).items()})
        counted["metrics loading"] = len(self.watcher._loading)
        counted["readers"] = self.state.readers
        return sizes_in(self.state) + stored + counted

    def live(self, life: Callable[["ShortLives", int], None], numbers: range) -> None:
        for number in numbers:
            life(self, number)
            self.pass_s(1)

    def pass_s(self, seconds: int) -> None:
        """The host reports all the time."""
        for _ in range(seconds):
            self.now += 1
            self.handle(events.Tick())
            self.report(HOST)
            self.serve()
            self.effects.clear()

    def settle(self) -> None:
        """Whatever waits for a time has seen it pass, but for what is days away."""
        self.report_all()
        self.pass_s(60)

    def ask_for(self, event: events.Event) -> None:
        self.handle(event)
        self.serve()

    def run(self, model: str, **options: object) -> str:
        """A task of which the worker is there or comes."""
        task_id = self.submit(model, **options)
        self.serve()
        self.handle(events.ReaderLeft(task_id))
        return task_id

    def report_all(self, **contents: object) -> None:
        """A full report of the host; `contents` in place of what it has otherwise."""
        living = tuple(_ready(spec) for node_id, spec in self.there.values() if node_id == HOST)
        has: dict[str, object] = {
            "devices": CARDS,
            "pools": (POOL,),
            "staged": {"file:/models/staying.gguf": 1000},
            "workers": living,
        }
        self.report(HOST, Snapshot(full=True, **(has | contents)), applied=1)  # type: ignore[arg-type]  # tests name fields
        self.serve()

    def serve(self) -> None:
        """The hosts and workers do what the brain wants done."""
        while self._to_do:
            effect = self._to_do.popleft()
            match effect:
                case effects.StageModel(node_id, source) if source in self.fails:
                    self.handle(events.StagingFailed(node_id, source, Reason.MODEL_FILE_MISSING, "no such file"))
                case effects.StageModel(node_id, source):
                    self.handle(events.ModelStaged(node_id, source, 1000))
                case effects.StartWorker(node_id, spec) if spec.model in self.fails:
                    self.handle(events.WorkerStartFailed(spec.worker_id, Reason.ENGINE_FAILED, "it crashed"))
                case effects.StartWorker(node_id, spec):
                    self.handle(events.WorkerStartAccepted(spec.worker_id, 1))
                    self.there[spec.worker_id] = (node_id, spec)
                    self.worker_ready(spec, node_id)
                case effects.StopWorker(node_id, worker_id) if worker_id in self.there:
                    self.worker_ended(self.there.pop(worker_id)[1], node_id)
                case effects.StartRun(_, attempt_id):
                    self.handle(events.AttemptStarted(attempt_id))
                    self.handle(events.AttemptFirstToken(attempt_id))
                    self.handle(events.AttemptEnded(attempt_id, answer()))
                case effects.PersistTerminal(task_id):
                    self.handle(events.TerminalPersisted(task_id))

    def _hear(self, event: events.Event) -> Handled:
        handled = self.brain.handle(event, self.now)
        self.watcher.observe(event, handled.effects, None, True)
        self.effects.extend(handled.effects)
        self._to_do.extend(handled.effects)
        for effect in handled.effects:
            if isinstance(effect, effects.PersistRecord):
                self._store(RecordChange(effect.before, effect.after))
            elif isinstance(effect, effects.PersistChange):
                for change in effect.changes:
                    self._store(change)
                self._hear(events.ChangeKept())
            elif isinstance(effect, effects.PersistTask):
                self._hear(events.TaskKept(effect.request.task_id))
        return handled

    def _store(self, change: RecordChange) -> None:
        kind = kind_of(change.record)
        rows = self.rows.setdefault(kind.name, {})
        rows.pop(change.record.record_key, None)
        if change.after is not None:
            rows[change.record.record_key] = change.after
        while kind.keep_last is not None and len(rows) > kind.keep_last:
            del rows[next(iter(rows))]


def answer(tokens_out: int = 20) -> RunResult:
    choices = (ChoiceEnd(0, FinishReason.EOS, tokens_out),)
    return RunResult(choices, tokens_in=50, tokens_out=tokens_out, decode_ms=300, prefill_ms=100)


def models(brain: ShortLives, number: int) -> None:
    """Added, loaded, used, given another file, retired, and deleted."""
    name = f"model-{number}"
    brain.add_model(name)
    for app in ("", "an-app"):
        brain.run(name, app=app, prompt_tokens=40, max_tokens=30)
    other = ModelSpec(name, f"file:/models/{name}-other.gguf", aliases=(f"{name}-alias",))
    brain.ask_for(events.ModelRegistered(other, Origin.CALL, "a test"))
    brain.run(f"{name}-alias")
    brain.ask_for(events.ModelStateSet(name, ModelState.RETIRED))
    brain.ask_for(events.ModelDeleted(name))


def models_that_fail(brain: ShortLives, number: int) -> None:
    """One has no file, and one crashes; the news of another load come when the model is gone."""
    missing, broken = f"missing-{number}", f"broken-{number}"
    for name in (missing, broken):
        brain.add_model(name)
    brain.fails = {f"file:/models/{missing}.gguf", broken}
    for name in (missing, broken):
        brain.run(name)
        brain.ask_for(events.ModelDeleted(name))
    brain.fails = set()


def models_deleted_while_they_load(brain: ShortLives, number: int) -> None:
    """The worker gets ready after that, and tells what it takes; another one fails after that."""
    for name, ends in ((f"ready-{number}", True), (f"late-{number}", False)):
        brain.add_model(name, size_mib=1000)
        brain.handle(events.ModelLoadAsked(name, f"load-of-{name}"))
        brain.handle(events.ModelStaged(HOST, f"file:/models/{name}.gguf", 1000))
        spec = brain.last(effects.StartWorker).spec
        brain._to_do.clear()  # what the host is told comes to it later
        brain.there[spec.worker_id] = (HOST, spec)
        brain.handle(events.ModelUnloadAsked(name, even_if_busy=True))
        brain.handle(events.ModelDeleted(name))
        if ends:
            brain.worker_ready(spec)
        else:
            brain.handle(events.WorkerStartFailed(spec.worker_id, Reason.ENGINE_FAILED, "it crashed", 7))
        brain.handle(events.StagingFailed(HOST, f"file:/models/{name}.gguf", Reason.MODEL_FILE_INVALID, "cut off"))
        brain.serve()
        brain.worker_ended(spec, failure=(Reason.ENGINE_FAILED, "it crashed"))
        brain.there.pop(spec.worker_id, None)


def models_of_a_folder(brain: ShortLives, number: int) -> None:
    name, source = f"offered-{number}", f"dir:offered-{number}.gguf"
    brain.report_all(staged={"file:/models/staying.gguf": 1000, source: 500}, offered={name: source})
    brain.run(name)
    for worker_id, (_, spec) in list(brain.there.items()):
        if spec.model == name:
            brain.ask_for(events.WorkerStopAsked(worker_id, even_if_busy=True))
    brain.report_all()


def nodes(brain: ShortLives, number: int) -> None:
    """A host with a name and a card of its own works, falls silent, and is forgotten by its operator."""
    node_id, card = f"node-{number}", gpu_of(f"node-{number}")
    _host_works(brain, node_id, card, f"host-{number}")
    brain.handle(events.NodeTroubled(node_id, "trouble"))
    _host_goes(brain, node_id)
    brain.ask_for(events.NodeForgotten(node_id))


def renamed_hosts(brain: ShortLives, number: int) -> None:
    """The same machine, called otherwise each time."""
    card = gpu("GPU-moving", name="Moving")
    _host_works(brain, f"renamed-{number}", card, "host-moving")
    _host_goes(brain, f"renamed-{number}")


def _host_works(brain: ShortLives, node_id: str, card: Device, host_id: str) -> None:
    staged = {"file:/models/staying.gguf": 1000}
    pool = Pool(f"{node_id}:all", node_id, (card.device_id,))
    brain.add_node(node_id, card, staged=staged, pools=(pool,), host_id=host_id)
    brain.assign("staying", node_id, Mode.PREFER, assignment_id=f"on-{node_id}")
    brain.ask_for(events.ModelLoadAsked("staying", f"on-{node_id}", places=(), anew=True))
    brain.run("staying", prompt_tokens=40)
    for worker_id, (on, _) in list(brain.there.items()):
        if on == node_id:
            brain.ask_for(events.WorkerStopAsked(worker_id, even_if_busy=True))
    brain.ask_for(events.AssignmentDeleted(f"on-{node_id}"))
    brain.ask_for(events.DeviceReleaseAsked(node_id, (card.device_id,)))
    brain.ask_for(events.PoolDrainAsked(pool.pool_id))


def _host_goes(brain: ShortLives, node_id: str) -> None:
    """With whatever runs there."""
    del brain.sessions[node_id]
    brain.pass_s(12)
    for worker_id, (on, _) in list(brain.there.items()):
        if on == node_id:
            del brain.there[worker_id]


def workers(brain: ShortLives, number: int) -> None:
    """Loaded, lost from sight, and unloaded; one crashes, and one of no known model was found."""
    brain.ask_for(events.ModelLoadAsked("staying", f"worker-{number}", anew=True))
    assert f"worker-{number}" in brain.there
    brain.handle(events.WorkerSilent(f"worker-{number}"))
    brain.handle(events.WorkerAttached(f"worker-{number}"))
    brain.ask_for(events.WorkerStopAsked(f"worker-{number}", even_if_busy=True))
    brain.ask_for(events.ModelLoadAsked("staying", f"crashing-{number}", anew=True))
    brain.worker_ended(brain.there.pop(f"crashing-{number}")[1], failure=(Reason.ENGINE_FAILED, "it crashed"))
    brain.pass_s(6)  # its memory is waited for
    found = WorkerSpec(
        worker_id=f"found-{number}",
        model=f"unknown-{number}",
        source=f"file:/models/unknown-{number}.gguf",
        device_ids=("GPU-1", f"GPU-of-{number}"),
        slots=1,
        context_per_slot=2048,
        reservation_mib=(100, 100),
    )
    brain.report(HOST, Snapshot(full=False, workers=(WorkerReported(found, WorkerState.STARTING),)))
    brain.worker_ended(found, failure=(Reason.ENGINE_FAILED, "it crashed"))


def apps(brain: ShortLives, number: int) -> None:
    """Used, and deleted while tasks of it run and wait."""
    name = f"app-{number}"
    app = App(name, f"hash-{number}", weight=2.0, max_tokens_per_minute=10_000, max_concurrent_tasks=1)
    brain.ask_for(events.AppCreated(app))
    brain.assign("staying", HOST, app=name, assignment_id=f"of-{name}")
    brain.run("staying", app=name, prompt_tokens=40, max_tokens=30)
    left = [brain.submit("staying", app=name) for _ in range(2)]
    brain.handle(events.AssignmentDeleted(f"of-{name}"))
    brain.handle(events.AppDeleted(name))
    brain.serve()
    for task_id in left:
        brain.handle(events.ReaderLeft(task_id))


def sessions(brain: ShortLives, number: int) -> None:
    for session_id in (f"session-{number}", f"session-{number}", f"deleted-{number}"):
        brain.run("staying", session_id=session_id)
    brain.ask_for(events.SessionDeleted("", f"deleted-{number}"))


def assignments(brain: ShortLives, number: int) -> None:
    brain.assign("staying", HOST, Mode.PREFER, assignment_id=f"rule-{number}")
    brain.ask_for(events.AssignmentDeleted(f"rule-{number}"))


def tasks(brain: ShortLives, number: int) -> None:
    """With far deadlines, request ids and lanes of their own: done, kept, cancelled while they wait."""
    brain.run("staying", deadline_s=LONG_S, request_id=f"request-{number}")
    brain.run("staying", deadline_s=LONG_S, durable=True)
    brain.ask_for(events.DeviceReleaseAsked(HOST, ("GPU-1", "GPU-2"), duration_s=4, until_ms=1))
    lane = Wishes(device_mask=("GPU-1", "GPU-2", f"GPU-of-{number}"))
    waiting = [brain.submit("staying", deadline_s=LONG_S, wishes=lane, durable=True) for _ in range(2)]
    brain.pass_s(2)
    for task_id in waiting:
        brain.ask_for(events.TaskCancelled(task_id, ""))
    brain.ask_for(events.DeviceResumeAsked(HOST, ("GPU-1", "GPU-2")))


def drains(brain: ShortLives, number: int) -> None:
    """Of a pool that the host's settings bring and take away again."""
    pool = Pool(f"{HOST}:pool-{number}", HOST, ("GPU-2",))
    brain.report_all(pools=(POOL, pool))
    brain.ask_for(events.PoolDrainAsked(pool.pool_id, deadline_s=LONG_S))
    brain.ask_for(events.PoolDrainAsked(pool.pool_id, after=AfterDrain.RELOAD))
    brain.report_all()


def devices(brain: ShortLives, number: int) -> None:
    """Put in, released, resumed, and taken out."""
    card = gpu(f"GPU-put-in-{number}", index=2, name=f"Card {number}")
    brain.report_all(devices=(*CARDS, card))
    brain.report_all(devices=(*CARDS, gpu(card.device_id, index=2, usable=False)))
    brain.ask_for(events.DeviceReleaseAsked(HOST, (card.device_id,), duration_s=LONG_S, until_ms=1))
    brain.ask_for(events.DeviceResumeAsked(HOST, (card.device_id,)))
    brain.report_all()


BOUNDS = {
    "decisions._ring": DECISIONS_KEPT,
    "stored decisions": DECISIONS_KEPT,
    "fleet.nodes[].loaded_as": 64,  # FINGERPRINTS_KEPT, of the host that stays
    "queue._room._classes[].returns[]._rate._intervals": REMEMBERED,  # of callers without an app
    "rates.answers._answers[][]": ANSWERS_REMEMBERED,  # of the model that stays
    "released._by_key": RELEASES_OF_FORGOTTEN_KEPT,
    "stored released_devices": RELEASES_OF_FORGOTTEN_KEPT,
    "timers._heap": 128,  # what does not count any more, as long as it is not the larger part
    "metrics loads.counts": 3 * (MOST_VALUES + 1),
    "metrics tokens.counts": 3 * (MOST_VALUES + 1),
    "metrics recent_tokens._buckets": BUCKETS,
    "metrics recent_deadlines._buckets": BUCKETS,
    "metrics recent_chances._buckets": BUCKETS,
}
"""What is bounded by a number of its own: the last so many are kept, whether they are gone or not."""

LIVES = (
    models,
    models_that_fail,
    models_deleted_while_they_load,
    models_of_a_folder,
    nodes,
    renamed_hosts,
    workers,
    apps,
    sessions,
    assignments,
    tasks,
    drains,
    devices,
)


def _ready(spec: WorkerSpec) -> WorkerReported:
    facts = EngineFacts("sim", "1", spec.slots, spec.context_per_slot, True, False, spec.reservation_mib)
    return WorkerReported(spec, WorkerState.READY, facts, Endpoint("127.0.0.1:9300", "secret"))
