"""Drives the brain by hand: sets the clock, hands in events, and keeps the effects that came."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TypeVar

from llorch.assignment_mode import Mode
from llorch.device_kind import DeviceKind
from llorch.finish_reason import FinishReason
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core import events
from orchestratord.core.brain import Brain, Handled
from orchestratord.core.effects import Effect, PersistChange, PersistTask, StageModel, StartWorker
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.fleet import Device, Endpoint, EngineFacts, Snapshot, WorkerReported
from orchestratord.core.facts.found_run import FoundRun
from orchestratord.core.facts.model import ModelSpec, Origin
from orchestratord.core.facts.task import ChoiceEnd, RunResult, Task, TaskRequest
from orchestratord.core.facts.warmth import NO_HEAD, PromptHead
from orchestratord.core.state import BrainConfig, BrainState

EffectT = TypeVar("EffectT")
AnswerT = TypeVar("AnswerT")

GIB = 1024


@dataclass
class BrainDriver:
    """`effects` are all that came since `forget_effects`; `now` is turned by `advance`."""

    config: BrainConfig = field(default_factory=BrainConfig)
    now: float = 100.0
    effects: list[Effect] = field(default_factory=list)
    sessions: dict[str, str] = field(default_factory=dict)
    store_answers: bool = True
    """Whether the store has at once what the brain wants kept; else the test answers for it."""
    ids_from: int = 1

    def __post_init__(self) -> None:
        numbers = count(self.ids_from)
        self.brain = Brain(self.config, lambda prefix: f"{prefix}-{next(numbers)}")
        self._task_numbers = count(1)

    @property
    def state(self) -> BrainState:
        return self.brain.state

    def handle(self, event: events.Event) -> list[Effect]:
        return self._hear(event).effects

    def ask(self, command: events.Command[AnswerT]) -> AnswerT:
        answer: AnswerT = self._hear(command).answer
        return answer

    def _hear(self, event: events.Event) -> Handled:
        handled = self.brain.handle(event, self.now)
        self.effects.extend(handled.effects)
        effects = list(handled.effects)
        for effect in handled.effects if self.store_answers else ():
            if isinstance(effect, PersistChange):
                effects += self._hear(events.ChangeKept()).effects
            elif isinstance(effect, PersistTask):
                effects += self._hear(events.TaskKept(effect.request.task_id)).effects
        return replace(handled, effects=effects)

    def advance(self, seconds: float, step: float = 0.25) -> None:
        """Turn the clock, ticking as the daemon does; nodes that are connected keep reporting."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + step, end)
            self.handle(events.Tick())

    def let_pass(self, seconds: float) -> None:
        """Time passes, and every node sends a heartbeat once a second."""
        end = self.now + seconds
        while self.now < end:
            self.advance(min(1.0, end - self.now))
            for node_id in self.sessions:
                self.report(node_id)

    def all_of(self, kind: type[EffectT]) -> list[EffectT]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def only(self, kind: type[EffectT]) -> EffectT:
        found = self.all_of(kind)
        assert len(found) == 1, f"{len(found)} effects of {kind.__name__}: {found}"
        return found[0]

    def last(self, kind: type[EffectT]) -> EffectT:
        return self.all_of(kind)[-1]

    def forget_effects(self) -> None:
        self.effects.clear()

    # What the world does.

    def add_model(self, name: str = "coder", size_mib: int | None = None, **options: object) -> None:
        spec = ModelSpec(name, f"file:/models/{name}.gguf", **options)  # type: ignore[arg-type]  # tests name fields
        self.handle(events.ModelRegistered(spec, Origin.CALL, "a test"))
        if size_mib is not None:
            self.state.catalog.get(name).size_mib = size_mib

    def add_node(
        self,
        node_id: str = "garage",
        *devices: Device,
        staged: dict[str, int] | None = None,
        instance_id: str = "pm",
        host_id: str = "",
        **contents: object,
    ) -> None:
        """`contents` are further fields of its first, full report."""
        session = f"link-{node_id}-{self.now}"
        self.sessions[node_id] = session
        fields: dict[str, object] = {"devices": devices or (gpu_of(node_id),), "staged": staged or {}}
        snapshot = Snapshot(full=True, **(fields | contents))  # type: ignore[arg-type]  # tests name fields
        registered = events.NodeRegistered(
            node_id, session, instance_id, f"{node_id}:9200", "0", snapshot, host_id=host_id
        )
        self.handle(registered)

    def report(self, node_id: str = "garage", snapshot: Snapshot | None = None, applied: int = 0) -> None:
        self.handle(events.NodeReported(node_id, self.sessions[node_id], applied, snapshot or Snapshot(full=False)))

    def submit(self, model: str = "coder", **options: object) -> str:
        head = options.pop("head", NO_HEAD)
        assert isinstance(head, PromptHead)
        number = next(self._task_numbers)
        fields: dict[str, object] = {
            "task_id": f"task-{number}",
            "model": model,
            "payload": b"",
            "content_digest": "digest",
            "seed": 1,
        }
        request = TaskRequest(**(fields | options))  # type: ignore[arg-type]  # tests name fields
        self.handle(events.TaskSubmitted(request, head))
        if not request.durable and request.task_id in self.state.tasks:
            self.handle(events.ReaderAttached(request.task_id))
        return request.task_id

    def task(self, task_id: str) -> Task:
        return self.state.tasks[task_id]

    def stage(self, model: str = "coder", node_id: str = "garage", size_mib: int = 4096) -> None:
        self.handle(events.ModelStaged(node_id, f"file:/models/{model}.gguf", size_mib))

    def worker_ready(
        self,
        spec: WorkerSpec,
        node_id: str = "garage",
        slots: int | None = None,
        runs: Sequence[FoundRun] = (),
        **facts_of_engine: object,
    ) -> None:
        """The node reports the worker as ready, and the link to it comes up."""
        reported = self.ready_report(spec, slots, **facts_of_engine)
        self.report(node_id, Snapshot(full=False, workers=(reported,)))
        self.attach(spec.worker_id, *runs)

    def ready_report(self, spec: WorkerSpec, slots: int | None = None, **facts_of_engine: object) -> WorkerReported:
        count, context = slots or spec.slots, spec.context_per_slot
        facts = EngineFacts("sim", "1", count, context, True, False, spec.reservation_mib, resumes=True)
        facts = replace(facts, **facts_of_engine)  # type: ignore[arg-type]  # tests name fields
        return WorkerReported(spec, WorkerState.READY, facts, Endpoint("127.0.0.1:9300", "secret"))

    def attach(self, worker_id: str, *runs: FoundRun) -> None:
        """The link to the worker comes up: it tells the runs that it holds, and the stream of frames begins."""
        self.handle(events.RunsFound(worker_id, runs))
        self.handle(events.WorkerAttached(worker_id))

    def worker_ended(self, spec: WorkerSpec, node_id: str = "garage", **options: object) -> None:
        reported = WorkerReported(spec, WorkerState.EXITED, **options)  # type: ignore[arg-type]  # tests name fields
        self.report(node_id, Snapshot(full=False, workers=(reported,)))

    def load(self, model: str = "coder", node_id: str = "garage", slots: int | None = None) -> WorkerSpec:
        """Bring up a worker for a model that a task waits for, from staging to attached."""
        if any(isinstance(effect, StageModel) for effect in self.effects):
            self.stage(model, node_id)
        spec = self.last(StartWorker).spec
        self.handle(events.WorkerStartAccepted(spec.worker_id, 1))
        self.worker_ready(spec, node_id, slots)
        return spec

    def load_idle(self, model: str, node_id: str = "garage") -> WorkerSpec:
        """The operator asks for the model to be loaded, and it comes up; no task uses it yet."""
        self.handle(events.ModelLoadAsked(model, f"worker-of-{model}"))
        known = self.state.catalog.get(model)
        if known.spec.source not in self.state.fleet.nodes[node_id].staged:
            self.stage(model, node_id, known.size_mib or 4096)
        spec = self.last(StartWorker).spec
        assert spec.model == model
        self.handle(events.WorkerStartAccepted(spec.worker_id, 1))
        self.worker_ready(spec, node_id)
        return spec

    def assign(self, model: str, target: str, mode: Mode = Mode.PREFER, **options: object) -> None:
        fields: dict[str, object] = {"assignment_id": "", "model": model, "app": "", "places": (None,), "mode": mode}
        draft = Assignment(targets=(target,), **(fields | options))  # type: ignore[arg-type]  # tests name fields
        self.handle(events.AssignmentSet(draft))

    def finish_attempt(self, attempt_id: str, tokens_out: int = 3) -> None:
        choices = (ChoiceEnd(0, FinishReason.EOS, tokens_out),)
        self.handle(events.AttemptEnded(attempt_id, RunResult(choices, tokens_in=5, tokens_out=tokens_out)))


def gpu_of(node_id: str, total_mib: int = 24 * GIB, **options: object) -> Device:
    """The only card of a node: of `garage`, the one that `gpu` makes."""
    return gpu("GPU-1" if node_id == "garage" else f"GPU-{node_id}", total_mib, **options)


def gpu(device_id: str = "GPU-1", total_mib: int = 24 * GIB, **options: object) -> Device:
    fields: dict[str, object] = {
        "device_id": device_id,
        "kind": DeviceKind.CUDA,
        "index": 0,
        "name": "RTX 3090",
        "usable": True,
        "total_mib": total_mib,
        "others_mib": 0,
        "reserve_mib": 0,
    }
    return Device(**(fields | options))  # type: ignore[arg-type]  # tests name fields
