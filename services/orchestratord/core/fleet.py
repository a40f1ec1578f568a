"""Nodes, devices and workers as the brain knows them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from llorch.errors import NotFound, Reason


class NodeState(StrEnum):
    JOINING = "JOINING"
    READY = "READY"
    SUSPECT = "SUSPECT"


class DeviceKind(StrEnum):
    CUDA = "CUDA"
    CPU = "CPU"
    SIMULATED = "SIMULATED"


class WorkerState(StrEnum):
    STARTING = "STARTING"
    READY = "READY"
    STOPPING = "STOPPING"
    ENDED = "ENDED"


@dataclass(frozen=True, slots=True)
class Device:
    """A device as reported. `report` is the report itself, carried to whoever asks and never read here."""

    device_id: str
    kind: DeviceKind
    index: int
    name: str
    usable: bool
    total_mib: int
    others_mib: int
    reserve_mib: int
    report: object = None


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """Everything that decides what a worker costs."""

    worker_id: str
    model: str
    source: str
    device_ids: tuple[str, ...]
    slots: int
    context_per_slot: int
    cache_type: str
    reservation_mib: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EngineFacts:
    engine: str
    engine_version: str
    slots: int
    context_per_slot: int
    simulated: bool
    cpu: bool
    memory_mib: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How to reach a worker; `access_token` is a secret."""

    address: str
    access_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class WorkerReported:
    """A worker as its node reports it; `failure` is (reason, message) of one that ended badly."""

    spec: WorkerSpec
    state: WorkerState
    engine: EngineFacts | None = None
    endpoint: Endpoint | None = None
    failure: tuple[Reason, str] | None = None
    report: object = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a node reports: with `full` all there is, otherwise what changed.

    `staged` maps sources to sizes in MiB, `offered` the names of models in the node's own folder to their sources.
    """

    full: bool
    devices: tuple[Device, ...] = ()
    workers: tuple[WorkerReported, ...] = ()
    staged: Mapping[str, int] = field(default_factory=dict)
    pools: tuple[object, ...] = ()
    offered: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Worker:
    """A worker that the brain wants or has found. `attempts` are the slots taken, by attempt id."""

    spec: WorkerSpec
    node_id: str
    asked_at: float
    state: WorkerState = WorkerState.STARTING
    engine: EngineFacts | None = None
    endpoint: Endpoint | None = None
    attached: bool = False
    was_attached: bool = False
    reattach_until: float | None = None
    start_seq: int | None = None
    last_used_at: float = 0.0
    attempts: set[str] = field(default_factory=set)
    report: object = None

    @property
    def worker_id(self) -> str:
        return self.spec.worker_id

    @property
    def slots_free(self) -> int:
        return (self.engine.slots if self.engine else 0) - len(self.attempts)

    @property
    def takes_runs(self) -> bool:
        return self.state is WorkerState.READY and self.attached and self.slots_free > 0

    @property
    def is_idle(self) -> bool:
        return self.state is WorkerState.READY and not self.attempts


@dataclass(slots=True)
class Node:
    """A GPU host. `session` fences its links: reports of an older one are dropped. `offered` as in its reports."""

    node_id: str
    session: str
    instance_id: str
    address: str
    version: str
    registered_at: float
    last_report_at: float
    labels: Mapping[str, str] = field(default_factory=dict)
    state: NodeState = NodeState.JOINING
    devices: dict[str, Device] = field(default_factory=dict)
    staged: dict[str, int] = field(default_factory=dict)
    pools: tuple[object, ...] = ()
    offered: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Fleet:
    nodes: dict[str, Node] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    _by_model: dict[str, dict[str, Worker]] = field(default_factory=dict)

    def node(self, node_id: str) -> Node:
        if node := self.nodes.get(node_id):
            return node
        known = ", ".join(sorted(self.nodes)) or "none"
        raise NotFound(Reason.NODE_NOT_FOUND, f"no node is called '{node_id[:128]}'; the nodes are: {known}")

    def worker(self, worker_id: str) -> Worker:
        if worker := self.workers.get(worker_id):
            return worker
        raise NotFound(Reason.WORKER_NOT_FOUND, f"no worker is called '{worker_id[:128]}'; `llorch ps` lists them")

    def add_worker(self, worker: Worker) -> None:
        self.workers[worker.worker_id] = worker
        self._by_model.setdefault(worker.spec.model, {})[worker.worker_id] = worker

    def remove_worker(self, worker_id: str) -> None:
        worker = self.workers.pop(worker_id)
        del self._by_model[worker.spec.model][worker_id]

    def workers_of_model(self, model: str) -> Iterator[Worker]:
        return iter(self._by_model.get(model, {}).values())

    def workers_on(self, node_id: str) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.node_id == node_id]

    def ready_nodes(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.state is NodeState.READY]

    def node_is_ready(self, worker: Worker) -> bool:
        """Nothing new goes to a node whose link has lapsed."""
        return self.nodes[worker.node_id].state is NodeState.READY

    def usable_devices(self) -> list[Device]:
        return [device for node in self.ready_nodes() for device in node.devices.values() if device.usable]
