"""Nodes, devices and workers as the brain knows them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from llorch.device_kind import DeviceKind
from llorch.errors import NotFound, Reason
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core.facts.known_node import KnownNode
from orchestratord.core.facts.promise import UNPROVEN, Fingerprint

FINGERPRINTS_KEPT = 64
"""Per node, the newest."""

MOST_DEVICES = 128
MOST_WORKERS = 1024
"""Of one node. What it reports beyond that is not its own, or not true."""

MOST_NODES = 1024
"""Connected or expected back. With more, the one that has been away longest is forgotten."""


class NodeState(StrEnum):
    """SUSPECT: its link has lapsed, what runs there goes on. LOST: its workers too could not be reached for long.
    AWAITED: known from before the start of the orchestrator, and not registered since.
    """

    JOINING = "JOINING"
    READY = "READY"
    SUSPECT = "SUSPECT"
    LOST = "LOST"
    AWAITED = "AWAITED"


@dataclass(frozen=True, slots=True)
class Device:
    """A device as reported. `report` is the report itself, carried to its readers and never read here.

    `used_mib` counts all processes, `others_mib` those of them that are not workers of this orchestrator. `engines` are
    the names of the engines that run on it, the first where a model names none; empty if its node does not report them.
    """

    device_id: str
    kind: DeviceKind
    index: int
    name: str
    usable: bool
    total_mib: int
    others_mib: int
    reserve_mib: int
    used_mib: int = 0
    compute_capability: str = ""
    engines: tuple[str, ...] = ()
    report: object = None

    @property
    def empty_mib(self) -> int:
        """What it holds for workers when no other program uses it; the CPU's memory is the machine's."""
        return max(0, self.total_mib - self.reserve_mib)


@dataclass(frozen=True, slots=True)
class Pool:
    """Devices of a node that are managed together. `report` is the report itself, never read here."""

    pool_id: str
    node_id: str
    device_ids: tuple[str, ...]
    report: object = None


@dataclass(frozen=True, slots=True)
class SavedSessions:
    """What the disk of a node has of the KV caches of sessions. `budget_mib` is the most that it may take; with 0
    nothing is saved there.
    """

    sequences: int = 0
    size_mib: int = 0
    budget_mib: int = 0


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """`resumes`: it continues a run where another attempt's output ends."""

    engine: str
    engine_version: str
    slots: int
    context_per_slot: int
    simulated: bool
    cpu: bool
    memory_mib: tuple[int, ...]
    resumes: bool = False
    fingerprint: Fingerprint = UNPROVEN


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How to reach a worker; `access_token` is a secret."""

    address: str
    access_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class WorkerReported:
    """A worker as its node reports it; `failure` is (reason, message) of one that ended badly. `warm_prompts` are
    conversations that it keeps, beside those of what runs.
    """

    spec: WorkerSpec
    state: WorkerState
    engine: EngineFacts | None = None
    endpoint: Endpoint | None = None
    failure: tuple[Reason, str] | None = None
    answers: bool = True
    warm_prompts: int = 0
    report: object = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a node reports: with `full` all there is, otherwise what changed.

    `staged` maps sources to sizes in MiB, `offered` the names of models in the node's own folder to their sources.
    `saved_sessions` is None where it did not change, and in all reports of a pool manager that saves none.
    """

    full: bool
    devices: tuple[Device, ...] = ()
    workers: tuple[WorkerReported, ...] = ()
    staged: Mapping[str, int] = field(default_factory=dict)
    pools: tuple[Pool, ...] = ()
    offered: Mapping[str, str] = field(default_factory=dict)
    saved_sessions: SavedSessions | None = None


class Leaving(StrEnum):
    """Why a worker takes no new runs, and ends as soon as nothing runs on it. The values are labels of metrics."""

    EVICTED = "evicted"
    IDLE = "idle"
    ASKED = "asked"
    CHANGED = "changed"
    RELEASED = "released"
    PRESSURE = "pressure"
    DRAINED = "drained"
    STUCK = "stuck"


@dataclass(slots=True)
class Worker:
    """A worker that the brain wants or has found. `attempts` are the slots taken, by attempt id.

    `reattach_until` is set while its frames are silent, `is_overdue` when attaching again has taken too long: its tasks
    may go on elsewhere. `expected_until`: its node has come back since, and until then no worker is loaded in its
    place; it is set once in a silence. `answers`: it answers its node's pool manager. `runs_known`: it has told which
    runs it holds. `was_found`: this orchestrator did not start it. `ready_at` is when tasks could first come to it,
    `last_class` that of its last run, by its place among the classes.
    `asked_of`: the pool manager, by its `instance_id`, that was told to start it. `asked`: a caller asked for this very
    worker, so it is not one too many when demand falls. `grant`: how many tasks it still serves, of those that waited
    for it when it was ready, before it leaves for others that wait for longer.
    """

    spec: WorkerSpec
    node_id: str
    asked_at: float
    state: WorkerState = WorkerState.STARTING
    engine: EngineFacts | None = None
    endpoint: Endpoint | None = None
    attached: bool = False
    was_attached: bool = False
    reattach_until: float | None = None
    is_overdue: bool = False
    expected_until: float | None = None
    refused: tuple[Reason, str] | None = None
    start_seq: int | None = None
    asked_of: str = ""
    ready_at: float | None = None
    last_used_at: float = 0.0
    last_class: int | None = None
    leaving: Leaving | None = None
    asked: bool = False
    answers: bool = True
    runs_known: bool = False
    was_found: bool = False
    grant: int = 0
    attempts: set[str] = field(default_factory=set)
    report: object = None

    @property
    def worker_id(self) -> str:
        return self.spec.worker_id

    @property
    def slots(self) -> int:
        """As it has told, else as it was asked for."""
        return self.engine.slots if self.engine else self.spec.slots

    @property
    def slots_free(self) -> int:
        return (self.engine.slots if self.engine else 0) - len(self.attempts)

    @property
    def takes_runs(self) -> bool:
        return self.state is WorkerState.READY and self.attached and self.leaving is None and self.slots_free > 0

    @property
    def is_idle(self) -> bool:
        return self.state is WorkerState.READY and not self.attempts

    @property
    def serves(self) -> bool:
        """It is there or on its way, and is not leaving."""
        return self.state is not WorkerState.STOPPING and self.leaving is None


@dataclass(slots=True)
class Node:
    """A GPU host. `session` fences its links: reports of an older one are dropped. `offered` as in its reports.

    `loaded_as` has the fingerprints of the last workers that were loaded there, by what they were told to load.
    `host_id` is the host's own, whatever it is called; empty if its pool manager tells none; `former` is the name that
    it had before. `boot_id` is drawn when the machine boots, empty if it is not told; `was_rebooted` since the link
    before. `known` is what is kept of the node, `failed_at` when devices of it stopped to answer, and `refused` what it
    claims of other nodes. `trouble` says what its operator has to do; empty as soon as the node reports to this
    orchestrator. `to_look_at` are sources of files that it is asked about, the last one now.
    """

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
    pools: dict[str, Pool] = field(default_factory=dict)
    offered: Mapping[str, str] = field(default_factory=dict)
    saved_sessions: SavedSessions = SavedSessions()
    host_id: str = ""
    former: str = ""
    boot_id: str = ""
    was_rebooted: bool = False
    known: KnownNode | None = None
    failed_at: dict[str, float] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    loaded_as: dict[WorkerSpec, Fingerprint] = field(default_factory=dict)
    trouble: str = ""
    to_look_at: list[str] = field(default_factory=list)
    _sites: tuple["Site", ...] = field(default=(), repr=False, compare=False)
    _sites_of: tuple[Device, ...] = field(default=(), repr=False, compare=False)

    def sites(self) -> tuple["Site", ...]:
        """Each device as a place of its own. They are kept, for decisions ask for those of the whole fleet."""
        devices = tuple(self.devices.values())
        if devices != self._sites_of:
            self._sites_of = devices
            self._sites = tuple(Site(self, (device,), (device.device_id,)) for device in devices)
        return self._sites

    def note_fingerprint(self, told: WorkerSpec, fingerprint: Fingerprint) -> None:
        self.loaded_as.pop(told, None)
        self.loaded_as[told] = fingerprint
        if len(self.loaded_as) > FINGERPRINTS_KEPT:
            del self.loaded_as[next(iter(self.loaded_as))]


@dataclass(slots=True)
class Site:
    """Devices of one node, in the order in which an engine would see them; with `worker`, what runs there already.

    Filters of devices get one device at a time.
    """

    node: Node
    devices: tuple[Device, ...]
    device_ids: tuple[str, ...]
    worker: Worker | None = None

    @property
    def name(self) -> str:
        """The devices for people, without their node."""
        return " + ".join(device.name for device in self.devices) or self.node.node_id

    @property
    def where(self) -> str:
        """For example: GPU 0 (RTX 3090) + GPU 1 (RTX 3060) of garage."""
        labels = (_label(device) for device in self.devices)
        return f"{' + '.join(labels)} of {self.node.node_id}" if self.devices else self.node.node_id


@dataclass(slots=True)
class Fleet:
    """Workers are found by id, by model, by node and by device; `silent` are those whose frames have stopped."""

    nodes: dict[str, Node] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    _by_model: dict[str, dict[str, Worker]] = field(default_factory=dict)
    _by_node: dict[str, dict[str, Worker]] = field(default_factory=dict)

    def node(self, node_id: str) -> Node:
        if node := self.nodes.get(node_id):
            return node
        known = ", ".join(sorted(self.nodes)) or "none"
        raise NotFound(Reason.NODE_NOT_FOUND, f"no node is called '{node_id[:128]}'; the nodes are: {known}")

    def worker(self, worker_id: str) -> Worker:
        if worker := self.workers.get(worker_id):
            return worker
        raise NotFound(Reason.WORKER_NOT_FOUND, f"no worker is called '{worker_id[:128]}'; `llorch ps` lists them")

    def pool(self, pool_id: str) -> Pool:
        for node in self.nodes.values():
            if pool := node.pools.get(pool_id):
                return pool
        known = ", ".join(sorted(pool_id for node in self.nodes.values() for pool_id in node.pools)) or "none"
        raise NotFound(Reason.POOL_NOT_FOUND, f"no pool is called '{pool_id[:128]}'; the pools are: {known}")

    def add_worker(self, worker: Worker) -> None:
        self.workers[worker.worker_id] = worker
        self._by_model.setdefault(worker.spec.model, {})[worker.worker_id] = worker
        self._by_node.setdefault(worker.node_id, {})[worker.worker_id] = worker

    def move_worker(self, worker_id: str, node_id: str) -> None:
        """Its host is called so now."""
        worker = self.workers[worker_id]
        _take_off(self._by_node, worker.node_id, worker_id)
        worker.node_id = node_id
        self._by_node.setdefault(node_id, {})[worker_id] = worker

    def remove_worker(self, worker_id: str) -> None:
        worker = self.workers.pop(worker_id)
        _take_off(self._by_model, worker.spec.model, worker_id)
        _take_off(self._by_node, worker.node_id, worker_id)
        self.silent.discard(worker_id)

    def workers_of_model(self, model: str) -> Iterator[Worker]:
        return iter(self._by_model.get(model, {}).values())

    def workers_on(self, node_id: str) -> list[Worker]:
        return list(self._by_node.get(node_id, {}).values())

    def workers_on_device(self, node_id: str, device_id: str) -> list[Worker]:
        return [worker for worker in self.workers_on(node_id) if device_id in worker.spec.device_ids]

    def workers_using(self, node_id: str, device_ids: Iterable[str]) -> list[Worker]:
        """Those that use at least one of the devices, in the order of their ids."""
        wanted = set(device_ids)
        workers = (worker for worker in self.workers_on(node_id) if not wanted.isdisjoint(worker.spec.device_ids))
        return sorted(workers, key=lambda worker: worker.worker_id)

    def ready_nodes(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.state is NodeState.READY]

    def node_is_ready(self, worker: Worker) -> bool:
        """Nothing new goes to a node whose link has lapsed."""
        return self.nodes[worker.node_id].state is NodeState.READY

    def usable_devices(self) -> list[Device]:
        return [device for node in self.ready_nodes() for device in node.devices.values() if device.usable]


def _take_off(index: dict[str, dict[str, Worker]], name: str, worker_id: str) -> None:
    del index[name][worker_id]
    if not index[name]:
        del index[name]


def _label(device: Device) -> str:
    return "the CPU" if device.kind is DeviceKind.CPU else f"GPU {device.index} ({device.name})"
