"""What a seed stands for: hosts, models and apps, the requests, and what goes wrong."""

from dataclasses import dataclass, field, replace
from random import Random

from orchestratord.simulation.plan import GIB, Chances, DevicePlan, HostPlan, ModelPlan, WorldPlan


@dataclass(frozen=True)
class AskedModel(ModelPlan):
    """`popularity`: how often it is asked for, against the others."""

    slots: int = 4
    idle_unload_s: float | None = None
    popularity: float = 1.0


@dataclass(frozen=True)
class AppPlan:
    """`traffic`: how often it asks, against the others."""

    name: str
    weight: float
    traffic: float


@dataclass(frozen=True)
class RulePlan:
    """An assignment: of a model, of an app, or of a model for an app, to one device or to a whole host."""

    model: str
    app: str
    mode: str
    node_id: str
    device_ids: tuple[str, ...] = ()
    keep_loaded: bool = False

    def covers(self, node_id: str, device_ids: tuple[str, ...]) -> bool:
        return node_id == self.node_id and (not self.device_ids or device_ids == self.device_ids)


@dataclass(frozen=True)
class FaultPlan(Chances):
    """How often things go wrong, per virtual second and in the whole world; delays in seconds."""

    node_cut_off: float = 0.0
    pool_manager_restarts: float = 0.0
    worker_crashes: float = 0.0
    worker_link_breaks: float = 0.0
    link_breaks_for_s: tuple[float, ...] = (0.1, 1.0, 4.0, 30.0)
    other_program_comes: float = 0.0
    pool_drains: float = 0.0
    operator_acts: float = 0.0
    load_is_slow: float = 0.05
    late_s: float = 0.02
    memory_returns_after_s: float = 0.2


@dataclass(frozen=True, kw_only=True)
class Plan(WorldPlan):
    models: tuple[AskedModel, ...]
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
    deterministic_share: float = 0.0
    poison: float = 0.0
    """Share of tasks that end every worker that they run on, at one and the same part of their answer."""
    tokens_in: tuple[int, int] = (5, 400)
    tokens_out: tuple[int, int] = (5, 120)
    max_starvation_s: float = 60.0
    min_residency_s: float = 4.0
    rules: tuple[RulePlan, ...] = ()


CARDS = (
    ("RTX 3060", 12 * GIB, 1.0),
    ("RTX 3090", 24 * GIB, 2.2),
    ("RTX A2000", 6 * GIB, 0.8),
    ("RTX 4090", 24 * GIB, 3.5),
    ("A100", 80 * GIB, 5.0),
)


def draw(seed: int) -> Plan:
    """Mostly small worlds, because small ones break in the same ways and run fast; now and then a large one."""
    return _with_an_operator(Random(f"an operator of {seed}"), _draw_undisturbed(seed))  # noqa: S311  # no secret


def _with_an_operator(random: Random, plan: Plan) -> Plan:
    """In half of the worlds an operator acts; in some the disk is full now and then. Drawn apart, as promises are."""
    acts = random.choice([0.0, 0.0, 0.2, 1.0])
    fails = random.choice([0.0, 0.0, 0.02, 0.3])
    return plan.with_(faults=replace(plan.faults, operator_acts=acts, writes_fail=fails))


def _draw_undisturbed(seed: int) -> Plan:
    random = Random(seed)  # noqa: S311  # a schedule, not a secret
    of_promises = Random(f"promises of {seed}")  # noqa: S311  # a schedule, not a secret
    if of_promises.random() < 0.15:
        return _draw_moving(of_promises, seed)
    of_losses = Random(f"losses of {seed}")  # noqa: S311  # a schedule, not a secret
    if of_losses.random() < 0.15:
        return _draw_losing(of_losses, seed)
    hosts = random.choices([1, 2, 3, 6, 20], [30, 35, 25, 9, 1])[0]
    models = random.choices([2, 4, 8, 30], [20, 45, 30, 5])[0]
    if random.random() < 0.15:
        return _draw_contended(random, seed)
    if random.random() < 0.15:
        return _draw_wavering(random, seed)
    drawn_hosts = tuple(_draw_host(random, number) for number in range(hosts))
    drawn_models = tuple(_draw_model(random, number) for number in range(models))
    apps = _draw_apps(random)
    return _with_promises(
        of_promises,
        Plan(
            seed=seed,
            hosts=drawn_hosts,
            models=drawn_models,
            apps=apps,
            rules=_draw_rules(random, drawn_hosts, drawn_models, apps),
            max_starvation_s=random.choice([2.0, 8.0, 60.0]),
            min_residency_s=random.choice([0.0, 2.0, 6.0]),
            arrivals_per_s=random.choice([0.5, 1.5, 3.0, 6.0]),
            burst=random.choice([0, 3, 10, 25]),
            disturbed_s=random.choice([10.0, 15.0, 30.0]),
            faults=_draw_faults(random),
            queue_capacity=random.choice([5, 50, 200]),
        ),
    )


def _with_promises(random: Random, plan: Plan) -> Plan:
    """Now and then tasks are deterministic, and operators drain pools, so that such tasks have to move.

    Drawn apart from the rest, so that the other worlds are what they were.
    """
    if random.random() > 0.3:
        return plan
    hosts = tuple(_draw_engine(random, host) for host in plan.hosts)
    faults = replace(plan.faults, pool_drains=random.choice([0.1, 0.4]))
    return plan.with_(hosts=hosts, faults=faults, deterministic_share=random.choice([0.3, 0.9]))


def _draw_engine(random: Random, host: HostPlan) -> HostPlan:
    return replace(host, driver=random.choice([1, 1, 2]), proven=random.random() < 0.9)


def _draw_moving(random: Random, seed: int) -> Plan:
    """Long answers, most of them deterministic, on a few cards of two kinds whose pools are drained all the time."""
    names = random.sample([card for card in CARDS if card[1] >= 12 * GIB], 2)
    hosts = []
    for number in range(random.choice([2, 3, 4])):
        name, total_mib, speed = random.choice(names)
        device = DevicePlan(f"GPU-host{number}-0", name, total_mib, 0, speed)
        hosts.append(_draw_engine(random, HostPlan(f"host{number}", (device,), 4000.0)))
    return Plan(
        seed=seed,
        hosts=tuple(hosts),
        models=(
            AskedModel(
                "model0", 9000, 9000, slots=random.choice([1, 2, 4]), decode_tokens_per_s=random.choice([20.0, 45.0])
            ),
        ),
        apps=(AppPlan("app0", 1.0, 1.0),),
        arrivals_per_s=random.choice([0.5, 1.0]),
        burst=random.choice([0, 3]),
        disturbed_s=25.0,
        faults=replace(_draw_faults(random), pool_drains=random.choice([0.3, 0.6])),
        deterministic_share=0.8,
        tokens_out=(80, 300),
        min_residency_s=random.choice([0.0, 2.0]),
    )


def _draw_contended(random: Random, seed: int) -> Plan:
    """Several apps that all want more than one model can give, for long enough to see the share of each."""
    names = ("first", "second", "third")[: random.choice([2, 2, 3])]
    return Plan(
        seed=seed,
        hosts=(HostPlan("host0", (DevicePlan("GPU-host0-0", "RTX 3090", 24 * GIB, 0, 1.0),), 4000.0),),
        models=(AskedModel("model0", 9000, 9000, 40.0, slots=random.choice([2, 4])),),
        apps=tuple(AppPlan(name, random.choice([1.0, 2.0, 4.0]), random.choice([1.0, 1.0, 5.0])) for name in names),
        arrivals_per_s=random.choice([8.0, 12.0]),
        burst=0,
        disturbed_s=20.0,
        faults=FaultPlan(late_s=random.choice([0.0, 0.02])),
        queue_capacity=1000,
        cancels=0.02,
        deadlines=0.0,
        batch_share=random.choice([0.0, 0.2]),
        tokens_in=(5, 60),
        tokens_out=(5, 25),
    )


def _draw_wavering(random: Random, seed: int) -> Plan:
    """Links to workers break all the time, and clients change their minds."""
    return Plan(
        seed=seed,
        hosts=(HostPlan("host0", (DevicePlan("GPU-host0-0", "RTX 3090", 24 * GIB, 0, 1.0),), 4000.0),),
        models=(AskedModel("model0", 9000, 9000, random.choice([20.0, 40.0]), slots=8),),
        apps=(AppPlan("app0", 1.0, 1.0),),
        arrivals_per_s=random.choice([1.0, 2.0]),
        burst=0,
        disturbed_s=25.0,
        faults=FaultPlan(
            worker_link_breaks=0.7, link_breaks_for_s=(0.5, 1.0), late_s=0.02, duplicate=random.choice([0.0, 0.2])
        ),
        cancels=0.6,
        durable_share=0.2,
        tokens_out=(40, 200),
    )


def _draw_losing(random: Random, seed: int) -> Plan:
    """Some tasks end their workers, which end of nothing else; or links are cut for longer than an attempt has."""
    hosts = tuple(
        HostPlan(f"host{number}", (DevicePlan(f"GPU-host{number}-0", "RTX 3090", 24 * GIB, 0, 1.0),), 8000.0)
        for number in range(random.choice([2, 3]))
    )
    plan = Plan(
        seed=seed,
        hosts=hosts,
        models=(
            AskedModel(
                "model0", 9000, 9000, slots=random.choice([2, 4, 8]), decode_tokens_per_s=random.choice([40.0, 90.0])
            ),
        ),
        apps=(AppPlan("app0", 1.0, 1.0),),
        arrivals_per_s=random.choice([1.0, 3.0]),
        burst=0,
        disturbed_s=30.0,
        deadlines=0.0,
        durable_share=0.5,
        tokens_out=(20, 120),
    )
    if random.random() < 0.5:
        return plan.with_(poison=random.choice([0.02, 0.1]))
    cuts = FaultPlan(worker_link_breaks=0.8, link_breaks_for_s=(3.0, 7.0, 8.0, 30.0), late_s=0.02)
    return plan.with_(faults=cuts, arrivals_per_s=0.7, tokens_out=(150, 400))


def _draw_host(random: Random, number: int) -> HostPlan:
    node_id = f"host{number}"
    count = random.choices([1, 2, 4], [50, 40, 10])[0]
    return HostPlan(node_id, tuple(_draw_device(random, node_id, index) for index in range(count)), 4000.0)


def _draw_device(random: Random, node_id: str, index: int) -> DevicePlan:
    name, total_mib, speed = random.choices(CARDS, [5, 3, 3, 2, 1])[0]
    return DevicePlan(f"GPU-{node_id}-{index}", name, total_mib, random.choice([0, 0, 512]), speed)


def _draw_model(random: Random, number: int) -> AskedModel:
    claim_mib = random.choice([900, 2500, 5000, 5500, 9000, 11_000, 20_000, 30_000])
    return AskedModel(
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


def _draw_rules(
    random: Random, hosts: tuple[HostPlan, ...], models: tuple[ModelPlan, ...], apps: tuple[AppPlan, ...]
) -> tuple[RulePlan, ...]:
    """At most one of each subject, so that they do not contradict one another; pins that can be met."""
    rules = []
    for model in random.sample(models, random.choice([0, 1, 2])):
        host = random.choice(hosts)
        large = [
            device.device_id for device in host.devices if device.total_mib - device.reserve_mib >= model.claim_mib
        ]
        mode = random.choice(["PIN", "PIN", "PREFER", "AVOID"])
        if large:
            keep_loaded = mode == "PIN" and random.random() < 0.6
            rules.append(RulePlan(model.name, "", mode, host.node_id, (random.choice(large),), keep_loaded))
    if random.random() < 0.15 and not rules:
        rules.append(
            RulePlan("", random.choice(apps).name, random.choice(["PIN", "AVOID"]), random.choice(hosts).node_id)
        )
    return tuple(rules)


def _draw_faults(random: Random) -> FaultPlan:
    """A quarter of the worlds is healthy: what goes wrong there is the brain's own fault."""
    if random.random() < 0.25:
        return FaultPlan()
    often = random.choice([0.02, 0.1, 0.3])

    def rate() -> float:
        return random.choice([0.0, often, often])

    return FaultPlan(
        node_cut_off=rate(),
        pool_manager_restarts=rate(),
        worker_crashes=rate(),
        worker_link_breaks=rate(),
        other_program_comes=rate(),
        load_fails=random.choice([0.0, 0.1, 0.3]),
        answer_lost=random.choice([0.0, 0.1, 0.3]),
        duplicate=random.choice([0.0, 0.2]),
        late_s=random.choice([0.0, 0.02, 0.3, 1.5]),
        memory_returns_after_s=random.choice([0.0, 2.0, 4.0]),
    )
