"""What a seed stands for: who is there, what is asked for, and what goes wrong."""

from dataclasses import dataclass, field
from random import Random

GIB = 1024


@dataclass(frozen=True)
class DevicePlan:
    device_id: str
    name: str
    total_mib: int
    reserve_mib: int
    speed: float
    """Relative to the slowest card."""


@dataclass(frozen=True)
class HostPlan:
    node_id: str
    devices: tuple[DevicePlan, ...]
    disk_mib_per_s: float


@dataclass(frozen=True)
class ModelPlan:
    """`claim_mib` is what the brain reckons with; `needs_mib` what a process of it really takes."""

    name: str
    claim_mib: int
    needs_mib: int
    slots: int
    popularity: float
    decode_tokens_per_s: float
    idle_unload_s: float | None = None


@dataclass(frozen=True)
class AppPlan:
    name: str
    weight: float
    traffic: float


@dataclass(frozen=True)
class FaultPlan:
    """How often things go wrong, per virtual second and in the whole world; delays in seconds."""

    node_cut_off: float = 0.0
    pool_manager_restarts: float = 0.0
    worker_crashes: float = 0.0
    worker_link_breaks: float = 0.0
    other_program_comes: float = 0.0
    load_fails: float = 0.0
    """Chance per load."""
    answer_lost: float = 0.0
    """Chance per command: it was carried out, but its answer never comes."""
    duplicate: float = 0.0
    """Chance per message that may come twice."""
    late_s: float = 0.02
    memory_returns_after_s: float = 0.2


@dataclass(frozen=True)
class Plan:
    seed: int
    hosts: tuple[HostPlan, ...]
    models: tuple[ModelPlan, ...]
    apps: tuple[AppPlan, ...]
    arrivals_per_s: float
    burst: int
    """A burst brings this many tasks at once, now and then."""
    disturbed_s: float
    faults: FaultPlan = field(default_factory=FaultPlan)
    queue_capacity: int = 200
    cancels: float = 0.05
    deadlines: float = 0.1
    batch_share: float = 0.3
    durable_share: float = 0.3
    tokens_out: tuple[int, int] = (5, 120)


CARDS = (
    ("RTX 3060", 12 * GIB, 1.0),
    ("RTX 3090", 24 * GIB, 2.2),
    ("RTX A2000", 6 * GIB, 0.8),
    ("RTX 4090", 24 * GIB, 3.5),
    ("A100", 80 * GIB, 5.0),
)


def draw(seed: int) -> Plan:
    """Mostly small worlds, because small ones break in the same ways and run fast; now and then a large one."""
    random = Random(seed)  # noqa: S311  # a schedule, not a secret
    hosts = random.choices([1, 2, 3, 6, 20], [30, 35, 25, 9, 1])[0]
    models = random.choices([2, 4, 8, 30], [20, 45, 30, 5])[0]
    return Plan(
        seed=seed,
        hosts=tuple(_draw_host(random, number) for number in range(hosts)),
        models=tuple(_draw_model(random, number) for number in range(models)),
        apps=_draw_apps(random),
        arrivals_per_s=random.choice([0.5, 1.5, 3.0, 8.0]),
        burst=random.choice([0, 3, 10, 40]),
        disturbed_s=random.choice([15.0, 25.0, 40.0]),
        faults=_draw_faults(random),
        queue_capacity=random.choice([5, 50, 200]),
    )


def _draw_host(random: Random, number: int) -> HostPlan:
    node_id = f"host{number}"
    count = random.choices([1, 2, 4], [50, 40, 10])[0]
    return HostPlan(node_id, tuple(_draw_device(random, node_id, index) for index in range(count)), 4000.0)


def _draw_device(random: Random, node_id: str, index: int) -> DevicePlan:
    name, total_mib, speed = random.choice(CARDS)
    return DevicePlan(f"GPU-{node_id}-{index}", name, total_mib, random.choice([0, 0, 512]), speed)


def _draw_model(random: Random, number: int) -> ModelPlan:
    claim_mib = random.choice([900, 2500, 5000, 5500, 9000, 11_000, 20_000])
    return ModelPlan(
        name=f"model{number}",
        claim_mib=claim_mib,
        needs_mib=round(claim_mib * random.choice([0.8, 0.97, 1.0])),
        slots=random.choice([1, 2, 4]),
        popularity=1 / (number + 1),
        decode_tokens_per_s=random.choice([20.0, 45.0, 90.0]),
        idle_unload_s=random.choice([None, None, None, 8.0]),
    )


def _draw_apps(random: Random) -> tuple[AppPlan, ...]:
    count = random.choice([1, 2, 3])
    return tuple(
        AppPlan(f"app{number}", random.choice([1.0, 1.0, 2.0, 4.0]), random.choice([1.0, 1.0, 20.0]))
        for number in range(count)
    )


def _draw_faults(random: Random) -> FaultPlan:
    """A quarter of the worlds is healthy: what goes wrong there is nobody else's fault."""
    if random.random() < 0.25:
        return FaultPlan()
    often = random.choice([0.01, 0.05, 0.15])

    def rate() -> float:
        return random.choice([0.0, often, often])

    return FaultPlan(
        node_cut_off=rate(),
        pool_manager_restarts=rate(),
        worker_crashes=rate(),
        worker_link_breaks=rate(),
        other_program_comes=rate(),
        load_fails=random.choice([0.0, 0.1, 0.3]),
        answer_lost=random.choice([0.0, 0.1]),
        duplicate=random.choice([0.0, 0.2]),
        late_s=random.choice([0.0, 0.02, 0.3, 1.5]),
        memory_returns_after_s=random.choice([0.0, 0.2, 2.0]),
    )
