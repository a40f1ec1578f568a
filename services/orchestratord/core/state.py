"""Everything that the brain knows, and the outbox of the effects that it wants."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from llorch.errors import NotFound, Reason, Unavailable
from llorch.run_times import KEPT_FOR_S
from orchestratord.core.effects import Effect, PersistChange
from orchestratord.core.facts.admission import AdmissionQueue, Waiting
from orchestratord.core.facts.apps import Apps
from orchestratord.core.facts.assignments import Assignments
from orchestratord.core.facts.attempt import Attempt
from orchestratord.core.facts.attempts import Attempts
from orchestratord.core.facts.calibration import Calibrations
from orchestratord.core.facts.catalog import Catalog
from orchestratord.core.facts.decision import Decisions
from orchestratord.core.facts.drains import Drains
from orchestratord.core.facts.fleet import Fleet
from orchestratord.core.facts.forgotten import ForgottenTasks
from orchestratord.core.facts.ledger import DeviceKey, Ledger
from orchestratord.core.facts.loads import LoadFailure, Loads
from orchestratord.core.facts.queue_room import QueuePolicy
from orchestratord.core.facts.records import RecordChange
from orchestratord.core.facts.released import ReleasedDevices
from orchestratord.core.facts.rules import Lane, OverridePolicy
from orchestratord.core.facts.sessions import Sessions
from orchestratord.core.facts.task import Task, TaskError, unknown_task
from orchestratord.core.facts.timers import TimerKind, Timers
from orchestratord.core.facts.warmth import Warmth
from orchestratord.core.learnt.demand import Demand
from orchestratord.core.learnt.rates import Rates


@dataclass(frozen=True, slots=True)
class BrainConfig:
    """Limits and times of the brain; seconds unless the name says otherwise."""

    priorities: tuple[str, ...] = ("interactive", "batch")
    queue_capacity: int = 1000
    queue_bytes: int = 128 * 2**20
    queue_policy: QueuePolicy = QueuePolicy.REJECT
    max_starvation_s: float = 60.0
    session_ttl_s: float = 600.0
    override_policy: OverridePolicy = OverridePolicy.WITHIN
    disconnect_grace_s: float = 2.0
    task_retention_s: float = 600.0
    tasks_retained: int = 10_000
    node_lease_s: float = 5.0
    reattach_s: float = 2.0
    detach_grace_s: float = KEPT_FOR_S
    no_device_grace_s: float = 30.0
    recovery_window_s: float = 120.0
    runs_found_within_s: float = 10.0
    stall_s: float = 1.0
    min_residency_s: float = 20.0
    model_wait_s: float = 20.0
    replica_idle_s: float = 300.0
    memory_return_s: float = 5.0
    load_retry_s: float = 5.0
    load_retry_max_s: float = 300.0
    node_lost_s: float = 60.0


CHANGE_RETRY_MS = 1000
RECOVERING_RETRY_MS = 250


@dataclass(slots=True)
class BrainState:
    config: BrainConfig
    new_id: Callable[[str], str]
    queue: AdmissionQueue
    now: float = 0.0
    clock_began_ms: float = 0.0
    """When the brain's clock was 0, in milliseconds since 1970; for what has to happen at a time of day."""
    last_tick: float | None = None
    no_device_since: float | None = None
    recovering_until: float = 0.0
    """After a start: until then, what was known before may still come back."""
    knew_no_node: bool = False
    """Whether nothing of before was known at the start, as after an upgrade from a release that kept no nodes."""
    lost_sight_until: float | None = None
    """After a start: until then, runs of before may still be found on workers. None: all that there are were."""
    lost_sight: dict[str, Waiting | None] = field(default_factory=dict)
    """Tasks of before the start that may run, in the order in which they were accepted. Of one that is being ended, the
    place that it had in the queue.
    """
    settles_at: float = 0.0
    """After a start: until then, no model is loaded that a node may have, loaded, which has not registered yet."""
    catalog: Catalog = field(default_factory=Catalog)
    fleet: Fleet = field(default_factory=Fleet)
    ledger: Ledger = field(default_factory=Ledger)
    timers: Timers = field(default_factory=Timers)
    apps: Apps = field(default_factory=Apps)
    sessions: Sessions = field(default_factory=Sessions)
    warmth: Warmth = field(default_factory=Warmth)
    rates: Rates = field(default_factory=Rates)
    tasks: dict[str, Task] = field(default_factory=dict)
    finished: OrderedDict[str, None] = field(default_factory=OrderedDict)
    forgotten: ForgottenTasks = field(default_factory=ForgottenTasks)
    readers: int = 0
    """Of all tasks together."""
    attempts: Attempts = field(default_factory=Attempts)
    suspects: set[str] = field(default_factory=set)
    """Tasks that have not ended, and under which a worker has."""
    lost_attempts: dict[str, Attempt] = field(default_factory=dict)
    """Of which it is still to be counted what they brought."""
    by_request_id: dict[tuple[str, str], str] = field(default_factory=dict)
    loads: Loads = field(default_factory=Loads)
    refusals: dict[str, dict[str, TaskError]] = field(default_factory=dict)
    load_failures: dict[str, LoadFailure] = field(default_factory=dict)
    demand: Demand = field(default_factory=Demand)
    released: ReleasedDevices = field(default_factory=ReleasedDevices)
    pressed: set[DeviceKey] = field(default_factory=set)
    drains: Drains = field(default_factory=Drains)
    calibrations: Calibrations = field(default_factory=Calibrations)
    assignments: Assignments = field(default_factory=Assignments)
    waits_told: dict[Lane, tuple[str, ...]] = field(default_factory=dict)
    """Of every lane with tasks that have no place: what is away, as they were told; nothing, if they are to be told."""
    decisions: Decisions = field(default_factory=Decisions)
    outbox: list[Effect] = field(default_factory=list)
    proposed: Callable[[], None] | None = None
    """What follows from the change that is on its way to the store, once that has it."""
    next_look_at: float | None = None
    to_look_at: dict[str, None] = field(default_factory=dict)
    crowded: dict[str, None] = field(default_factory=dict)
    """Models for which tasks wait, and that had no free slot for them."""
    look_again: bool = False
    """Something became free or came: after this event, the brain looks again for places for what waits."""

    def ms_since_1970(self, at: float) -> float:
        """A time of the brain's clock by the machine's."""
        return self.clock_began_ms + at * 1000

    @property
    def ms_now(self) -> int:
        """By the machine's clock."""
        return round(self.ms_since_1970(self.now))

    def time_of(self, ms_since_1970: float) -> float:
        """A time of the machine's clock by the brain's; now, for one that has passed."""
        return max(self.now, (ms_since_1970 - self.clock_began_ms) / 1000)

    def emit(self, *effects: Effect) -> None:
        self.outbox.extend(effects)

    def propose(self, follow: Callable[[], None], *changes: RecordChange) -> None:
        """A command changes records: what follows from it, the change itself first, happens once the store has them.

        The last that a command does, since it is refused while the store has not answered for another change. `follow`
        refuses nothing; it finds the state as it is by then.
        """
        changes = tuple(change for change in changes if change.before != change.after)
        if not changes:
            follow()
            return
        if self.proposed is not None:
            raise Unavailable(
                Reason.STORE_FAILED,
                "an earlier change is still being written to the orchestrator's disk, and nothing was changed; look at "
                "the disk if this lasts, and try again",
                retry_after_ms=CHANGE_RETRY_MS,
            )
        self.proposed = follow
        self.emit(PersistChange(changes))

    def look_by(self, when: float) -> None:
        """Look again at this time, when tasks may have waited long enough; if not, that look sets a new time."""
        if self.next_look_at is None or when < self.next_look_at:
            self.next_look_at = when
            self.timers.at(when, TimerKind.LOOK_AGAIN, "")

    def task(self, task_id: str) -> Task:
        """A task that is kept, or NOT_FOUND; the reason tells a finished and forgotten one from an unknown one."""
        if task := self.tasks.get(task_id):
            return task
        if self.lost_sight_until is not None:
            raise Unavailable(
                Reason.RECOVERING,
                "the orchestrator has just started and looks for what runs; whether it has task "
                f"'{task_id[:128]}', it does not know yet; ask again",
                retry_after_ms=RECOVERING_RETRY_MS,
            )
        if task_id in self.forgotten:
            kept_s = round(self.config.task_retention_s)
            raise NotFound(
                Reason.EXPIRED, f"task '{task_id}' is finished and no longer kept; results are kept for {kept_s} s"
            )
        raise unknown_task(task_id)

    def task_seen_by(self, app: str, task_id: str) -> Task:
        """As `task`; to an app, the tasks of others are not there."""
        task = self.task(task_id)
        if app and task.request.app != app:
            raise unknown_task(task_id)
        return task

    @property
    def running(self) -> int:
        return len(self.attempts)
