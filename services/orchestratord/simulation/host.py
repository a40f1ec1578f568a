"""A GPU host and its pool manager, as they really are."""

from dataclasses import dataclass, field

from llorch.device_kind import DeviceKind
from llorch.errors import Reason
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core.facts.fleet import Device, Endpoint, EngineFacts, Pool, Snapshot, WorkerReported
from orchestratord.core.facts.promise import Fingerprint
from orchestratord.simulation.plan import DevicePlan, HostPlan
from orchestratord.simulation.process import Process
from orchestratord.simulation.schedule import Wire


@dataclass
class Card:
    """A device. `lingering_mib` is memory of processes that are gone, which the driver has not given back yet."""

    plan: DevicePlan
    other_program_mib: int = 0
    lingering_mib: int = 0
    sampled: tuple[int, int] = (0, 0)
    """Both, as the pool manager has last read them from the driver."""

    @property
    def capacity_mib(self) -> int:
        return self.plan.total_mib - self.plan.reserve_mib


@dataclass
class Host:
    plan: HostPlan
    cards: dict[str, Card] = field(init=False)
    processes: dict[str, Process] = field(default_factory=dict)
    staged: dict[str, int] = field(default_factory=dict)
    stopped_before_start: set[str] = field(default_factory=set)
    instance: int = 1
    boots: int = 0
    session: str = ""
    line: Wire | None = None
    """The link's way up; None while the host is cut off."""
    applied_command_seq: int = 0
    told: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By device: what the brain was last told that other programs take, and what had not come back yet."""
    reports_sent: int = 0

    def __post_init__(self) -> None:
        self.cards = {device.device_id: Card(device) for device in self.plan.devices}

    @property
    def node_id(self) -> str:
        return self.plan.node_id

    @property
    def pool_id(self) -> str:
        return f"pool-{self.node_id}"

    def fingerprint_of(self, spec: WorkerSpec) -> str:
        """What answers there really depend on; empty if the host does not say it."""
        names = "+".join(self.cards[device_id].plan.name for device_id in spec.device_ids)
        return f"{names} driver {self.plan.driver} context {spec.context_per_slot}" if self.plan.proven else ""

    def on_card(self, device_id: str) -> list[Process]:
        return [process for process in self.processes.values() if device_id in process.spec.device_ids]

    def fits(self, process: Process) -> bool:
        """Whether the memory is really there, when the process takes it."""
        for device_id, mib in zip(process.spec.device_ids, process.needs_mib, strict=True):
            card = self.cards[device_id]
            taken = sum(other.holds_mib(device_id) for other in self.on_card(device_id) if other is not process)
            if taken + mib + card.other_program_mib + card.lingering_mib > card.plan.total_mib:
                return False
        return True

    def _read_driver(self) -> None:
        for card in self.cards.values():
            card.sampled = card.other_program_mib, card.lingering_mib

    def samples(self) -> dict[str, tuple[int, int]]:
        return {device_id: card.sampled for device_id, card in self.cards.items()}

    def snapshot(self, *, full: bool, only: Process | None = None) -> Snapshot:
        """All there is; or with `only` one worker that changed; or what devices are like now, read from the driver."""
        if only is None:
            self._read_driver()
        chosen = list(self.processes.values()) if full else [only] if only else []
        return Snapshot(
            full=full,
            devices=() if only else tuple(self._device(card) for card in self.cards.values()),
            workers=tuple(reported(process) for process in chosen),
            staged=dict(self.staged) if full else {},
            pools=(Pool(self.pool_id, self.node_id, tuple(self.cards)),) if full else (),
        )

    def _device(self, card: Card) -> Device:
        return Device(
            device_id=card.plan.device_id,
            kind=DeviceKind.CUDA,
            index=list(self.cards).index(card.plan.device_id),
            name=card.plan.name,
            usable=True,
            total_mib=card.plan.total_mib,
            others_mib=sum(card.sampled),
            reserve_mib=card.plan.reserve_mib,
        )


def reported(process: Process) -> WorkerReported:
    if not process.is_alive:
        failure = (Reason.ENGINE_FAILED, process.failure) if process.failure else None
        return WorkerReported(process.spec, WorkerState.EXITED, failure=failure)
    if process.state is WorkerState.STARTING:
        return WorkerReported(process.spec, process.state)
    facts = EngineFacts(
        engine="sim",
        engine_version="1",
        slots=process.spec.slots,
        context_per_slot=process.spec.context_per_slot,
        simulated=True,
        cpu=False,
        memory_mib=process.needs_mib,
        resumes=True,
        fingerprint=Fingerprint(process.fingerprint),
    )
    return WorkerReported(process.spec, process.state, facts, Endpoint("worker:1", "secret"))
