"""A large fleet for measurements: the brain, brought there by the events that a real one would hear."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from llorch.device_kind import DeviceKind
from llorch.finish_reason import FinishReason
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.brain import Brain
from orchestratord.core.facts.fleet import Device, Endpoint, EngineFacts, Snapshot, WorkerReported
from orchestratord.core.facts.model import ModelSpec, Origin
from orchestratord.core.facts.task import ChoiceEnd, RunResult, TaskRequest
from orchestratord.core.state import BrainConfig

GIB = 1024
CLAIM_MIB = 9 * GIB
SLOTS = 4
APPS = 20


@dataclass(frozen=True)
class Size:
    """`spare` models have no worker. 2.5 workers fit on a device, so that there is nearly no room for another one."""

    nodes: int = 100
    devices: int = 8
    models: int = 200
    workers: int = 2000
    spare: int = 20


@dataclass
class Fleet:
    size: Size
    now: float = 0.0
    brain: Brain = field(init=False)
    running: dict[str, str] = field(default_factory=dict)
    """Tasks by attempt."""

    def __post_init__(self) -> None:
        numbers = count(1)
        config = BrainConfig(queue_capacity=1_000_000, queue_bytes=2**40, tasks_retained=1000, node_lease_s=1e9)
        self.brain = Brain(config, lambda prefix: f"{prefix}-{next(numbers)}")
        self._tasks = count(1)
        for number in range(self.size.models + self.size.spare):
            self.add_model(f"model{number}", CLAIM_MIB)
        workers = iter(range(self.size.workers))
        for number in range(self.size.nodes):
            self._add_node(f"node{number:03}", workers)

    def handle(self, event: events.Event) -> list[effects.Effect]:
        """The store has at once what is to be kept."""
        self.now += 1e-4
        wanted = list(self.brain.handle(event, self.now).effects)
        for effect in tuple(wanted):
            if isinstance(effect, effects.StartRun):
                self.running[effect.attempt_id] = effect.request.task_id
            elif isinstance(effect, effects.PersistTask):
                wanted += self.handle(events.TaskKept(effect.request.task_id))
            elif isinstance(effect, effects.PersistChange):
                wanted += self.handle(events.ChangeKept())
        return wanted

    def add_model(self, name: str, claim_mib: int) -> None:
        spec = ModelSpec(name, source(name), slots=SLOTS, vram_claim_mib=claim_mib, context=4096)
        self.handle(events.ModelRegistered(spec, Origin.CALL, "a measurement"))

    def request(self, model: int, **fields: object) -> TaskRequest:
        number = next(self._tasks)
        known: dict[str, object] = {
            "task_id": f"task-{number}",
            "model": f"model{model}",
            "payload": b"",
            "content_digest": "digest",
            "seed": 1,
            "app": f"app{number % APPS}",
            "durable": True,  # these have no reader that could go away
        }
        return TaskRequest(**(known | fields))  # type: ignore[arg-type]  # measurements name fields

    def submit(self, model: int, **fields: object) -> list[effects.Effect]:
        return self.handle(events.TaskSubmitted(self.request(model, **fields)))

    def fill(self) -> None:
        """Every slot has a task."""
        for number in range(self.size.workers * SLOTS):
            self.submit(number % self.size.models)

    def ended(self) -> events.AttemptEnded:
        """The end of the attempt that has run longest."""
        attempt_id = next(iter(self.running))
        self.finished = self.running.pop(attempt_id)
        return events.AttemptEnded(attempt_id, answer())

    def heartbeat(self, node: int) -> events.NodeReported:
        """Nothing changed there."""
        node_id = f"node{node:03}"
        return events.NodeReported(node_id, node_id, 0, Snapshot(full=False, devices=self._devices(node_id)))

    def _add_node(self, node_id: str, workers: Iterator[int]) -> None:
        devices = self._devices(node_id)
        per_node = self.size.workers // self.size.nodes
        specs = [self._spec(next(workers), devices[index % len(devices)]) for index in range(per_node)]
        snapshot = Snapshot(
            full=True,
            devices=devices,
            workers=tuple(self._reported(spec) for spec in specs),
            staged={source(f"model{number}"): CLAIM_MIB for number in range(self.size.models + self.size.spare)},
        )
        self.handle(events.NodeRegistered(node_id, node_id, "first", f"{node_id}:9200", "0", snapshot))
        for spec in specs:
            self.handle(events.WorkerAttached(spec.worker_id))

    def _spec(self, number: int, device: Device) -> WorkerSpec:
        model = number % self.size.models
        return WorkerSpec(
            f"found-{number}",
            f"model{model}",
            source(f"model{model}"),
            (device.device_id,),
            SLOTS,
            4096,
            reservation_mib=(CLAIM_MIB,),
        )

    def _reported(self, spec: WorkerSpec) -> WorkerReported:
        facts = EngineFacts("sim", "1", SLOTS, 4096, True, False, (CLAIM_MIB,))
        return WorkerReported(spec, WorkerState.READY, facts, Endpoint("worker:1", "secret"))

    def _devices(self, node_id: str) -> tuple[Device, ...]:
        return tuple(
            Device(f"GPU-{node_id}-{index}", DeviceKind.CUDA, index, "RTX 3090", True, 24 * GIB, 0, 0)
            for index in range(self.size.devices)
        )


def source(name: str) -> str:
    return f"file:/models/{name}.gguf"


def answer() -> RunResult:
    return RunResult((ChoiceEnd(0, FinishReason.EOS, 50),), tokens_in=100, tokens_out=50, decode_ms=1000)
