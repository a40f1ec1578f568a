"""A fleet to decide about: nodes with cards, models, and workers that hold memory."""

from dataclasses import dataclass, field
from itertools import count

from llorch.assignment_mode import Mode
from llorch.device_kind import DeviceKind
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core.events import AssignmentSet, ChangeKept
from orchestratord.core.facts.admission import AdmissionQueue, Waiting
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.attempt import Attempt
from orchestratord.core.facts.decision import Decision
from orchestratord.core.facts.fleet import Device, EngineFacts, Node, NodeState, Pool, Worker
from orchestratord.core.facts.model import Model, ModelSpec, Origin
from orchestratord.core.facts.promise import UNPROVEN, Fingerprint
from orchestratord.core.facts.rules import Lane
from orchestratord.core.lives import proposals
from orchestratord.core.lives.assignment_changes import assignment_set
from orchestratord.core.placement.pipeline import place_load
from orchestratord.core.placement.query import LoadRequest
from orchestratord.core.state import BrainConfig, BrainState

GIB = 1024


def card(
    device_id: str = "GPU-3090", name: str = "RTX 3090", gib: int = 24, index: int = 0, **fields: object
) -> Device:
    given = {"kind": DeviceKind.CUDA, "usable": True, "others_mib": 0, "reserve_mib": 0} | fields
    return Device(device_id=device_id, name=name, total_mib=gib * GIB, index=index, **given)  # type: ignore[arg-type]  # tests name fields


BIG = card()
SMALL = card("GPU-3060", "RTX 3060", 12, 1)


@dataclass
class Scene:
    """The node "garage" with two cards unless told otherwise."""

    state: BrainState = field(
        default_factory=lambda: BrainState(
            BrainConfig(), lambda kind: kind, AdmissionQueue(("interactive", "batch"), 100)
        )
    )

    def __post_init__(self) -> None:
        self.state.now = 10_000.0
        self._numbers = count(1)

    def node(self, node_id: str = "garage", *cards: Device, state: NodeState = NodeState.READY) -> Node:
        cards = cards or (BIG, SMALL)
        node = Node(node_id, "link", "pm", f"{node_id}:1", "0", 0.0, self.state.now, state=state)
        node.devices = {device.device_id: device for device in cards}
        node.pools = {f"pool-{node_id}": Pool(f"pool-{node_id}", node_id, tuple(node.devices))}
        self.state.fleet.nodes[node_id] = node
        for device in cards:
            total = device.total_mib if device.usable else 0
            self.state.ledger.set_device((node_id, device.device_id), total, device.reserve_mib, device.others_mib)
        return node

    def model(self, name: str = "coder", mib: int = 8 * GIB, **options: object) -> Model:
        """One that takes so much memory, whatever the context is."""
        spec = ModelSpec(name, f"file:/{name}.gguf", vram_claim_mib=mib, **options)  # type: ignore[arg-type]  # tests name fields
        self.state.catalog.register(spec, Origin.CALL, "a test", 0)
        model = self.state.catalog.get(name)
        model.size_mib = mib
        return model

    def worker(
        self,
        model: str,
        mib: int,
        *device_ids: str,
        node_id: str = "garage",
        busy: int = 0,
        age_s: float = 3600,
        slots: int = 4,
        context: int = 4096,
        fingerprint: Fingerprint = UNPROVEN,
    ) -> Worker:
        """One that is loaded and ready, and was used `age_s` ago."""
        worker_id = f"{model}-{next(self._numbers)}"
        device_ids = device_ids or (BIG.device_id,)
        claims = (mib,) * len(device_ids)
        spec = WorkerSpec(worker_id, model, f"file:/{model}.gguf", device_ids, slots, context, reservation_mib=claims)
        facts = EngineFacts("sim", "1", slots, context, True, False, claims, fingerprint=fingerprint)
        worker = Worker(spec, node_id, 0.0, state=WorkerState.READY, engine=facts, attached=True)
        worker.ready_at = worker.last_used_at = self.state.now - age_s
        for number in range(busy):
            place = Waiting(model, "interactive", "", Lane(model), number)
            run_id = f"{worker_id}-run-{number}"
            attempt = Attempt(
                run_id,
                1,
                f"task-of-{run_id}",
                worker_id,
                place,
                charged=1,
                share=1.0,
                charged_s=1.0,
                began_at=0.0,
                batch=1,
            )
            self.state.attempts[attempt.attempt_id] = attempt
            worker.attempts.add(attempt.attempt_id)
        self.state.fleet.add_worker(worker)
        self.state.ledger.reserve(worker_id, {(node_id, device_id): mib for device_id in device_ids})
        return worker

    def rule(self, mode: Mode, *targets: str, model: str = "coder", app: str = "", **options: object) -> Assignment:
        """Checked and in force."""
        for name in {model, app} - {""}:
            self._introduce(name, is_app=name == app)
        draft = Assignment("", model, app, targets, mode, **options)  # type: ignore[arg-type]  # tests name fields
        rule = assignment_set(self.state, AssignmentSet(draft))
        proposals.kept(self.state, ChangeKept())
        self.state.outbox.clear()
        return rule

    def _introduce(self, name: str, *, is_app: bool) -> None:
        if is_app and self.state.apps.find(name) is None:
            self.state.apps.put(App(name, key_hash=name))
        elif not is_app and self.state.catalog.find(name) is None:
            self.model(name)

    def place(self, model: str = "coder", *, details: bool = False, **options: object) -> Decision:
        options = {"lane": Lane(model), "context": 4096} | options
        request = LoadRequest(self.state.catalog.get(model), **options)  # type: ignore[arg-type]  # tests name fields
        return place_load(self.state, request, details=details)

    def chosen(self, model: str = "coder", **options: object) -> tuple[str, ...]:
        """The devices that the decision fell on, as node/device."""
        chosen = self.place(model, **options).chosen  # type: ignore[arg-type]  # tests name fields
        return () if chosen is None else tuple(f"{chosen.node_id}/{device_id}" for device_id in chosen.device_ids)
