"""An orchestrator that is started again amid workers that go on: whatever comes first, each task ends once.

Nodes come in any order or not at all, workers hold runs of before, tell them early, late or never, and lose them again;
clients come back, cancel and ask again. Time is virtual, and one seed makes one world.
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from llorch.device_kind import DeviceKind
from llorch.errors import LlorchError, Reason
from llorch.worker_spec import WorkerSpec
from orchestratord.core import effects, events
from orchestratord.core.facts.found_run import FoundRun, TaskRecord
from orchestratord.core.facts.known_node import KnownDevice, KnownNode
from orchestratord.core.facts.task import TaskRequest, TaskState
from support.brain_driver import BrainDriver, gpu_of

SEEDS = int(os.environ.get("LLORCH_SIM_SEEDS", "100")) * 4
NODES = ("attic", "cellar", "shed")
SLOTS = 3
SOURCE = "file:/models/coder.gguf"


@dataclass
class Restart:
    seed: int
    runs: dict[str, list[FoundRun]] = field(default_factory=lambda: {name: [] for name in NODES})
    """By node: what its worker holds."""
    terminals: Counter[str] = field(default_factory=Counter)
    opened: set[str] = field(default_factory=set)
    released: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)  # noqa: S311  # a schedule, not a secret
        self.driver = BrainDriver()
        self.accepted = [self._request(number, durable=True) for number in range(self.random.randrange(8))]
        self.spoken = [self._request(100 + number, durable=False) for number in range(self.random.randrange(5))]
        self._draw_runs()

    def _request(self, number: int, *, durable: bool) -> TaskRequest:
        return TaskRequest(
            task_id=f"task-{number}",
            model="coder",
            payload=b"work",
            content_digest="digest",
            seed=1,
            durable=durable,
            request_id=self.random.choice(["", f"r{number}"]),
            deadline_s=self.random.choice([None, None, 8.0]),
        )

    def _draw_runs(self) -> None:
        """Of some tasks one run is left, of a few two; and of tasks that nothing is known of any more."""
        number = 0
        gone = self._request(77, durable=True)
        for request in (*self.accepted, *self.spoken, gone):
            for attempt in range(1, self.random.choice([1, 2, 2, 3])):
                number += 1
                record = self.random.choice([TaskRecord(request, 990_000)] * 9 + [None])
                run = FoundRun(f"old-{number}", record, attempt, log_epoch=2, entries=self.random.randrange(9))
                holders = [runs for runs in self.runs.values() if len(runs) < SLOTS]
                self.random.choice(holders).append(run) if holders else None

    def go(self) -> None:
        known = [
            KnownNode(
                name, "", f"{name}:1", "0", {},
                (KnownDevice(f"GPU-{name}", DeviceKind.CUDA, 0, "RTX 3090", 24_576, 0, "", ()),), (), {}, "",
            )
            for name in NODES
        ]  # fmt: skip
        self._tell(events.RecordsFound(tuple(known), 1_000_000))
        self.driver.add_model("coder", slots=SLOTS)
        self._tell(events.RecoveryBegan())
        for request in self.accepted:
            self.opened.add(request.task_id)
            self._tell(events.TaskRestored(request, 5.0))
        happenings = [*(self._node_comes(name) for name in NODES if self.random.random() < 0.9)]
        happenings += [self._client_asks] * 6 + [self._client_cancels] * 2 + [self._run_is_lost] * 2
        self.random.shuffle(happenings)
        for happens in happenings:
            happens()
            self._check()
            self._pass(self.random.choice([0.0, 0.3, 3.0]))
        self._settle()

    # What happens.

    def _node_comes(self, name: str) -> Callable[[], None]:
        def comes() -> None:
            spec = WorkerSpec(f"worker-{name}", "coder", SOURCE, (f"GPU-{name}",), SLOTS, 4096, reservation_mib=(4000,))
            self.driver.add_node(name, gpu_of(name), staged={SOURCE: 4000})
            self._take_note()
            self.driver.worker_ready(spec, name, runs=self.runs[name])
            self._take_note()

        return comes

    def _client_asks(self) -> None:
        """A reader of before comes back, a request is made again, or a new one comes."""
        request = self.random.choice([*self.accepted, *self.spoken, self._request(200, durable=False)])
        if self.random.random() < 0.5 and request.request_id:
            self._tell(events.TaskSubmitted(replace(request, task_id=f"again-{request.task_id}-{self.driver.now}")))
        else:
            self._tell(events.ReaderAttached(request.task_id))

    def _client_cancels(self) -> None:
        if tasks := sorted(self.driver.state.tasks):
            self._tell(events.TaskCancelled(self.random.choice(tasks)))

    def _run_is_lost(self) -> None:
        if attempts := sorted(self.driver.state.attempts):
            self._tell(events.AttemptUnknown(self.random.choice(attempts)))

    def _settle(self) -> None:
        """Everything that runs ends; time passes; nothing is left."""
        for name in NODES:
            if name not in self.driver.sessions:
                self._node_comes(name)()
        for _ in range(80):
            for attempt_id in sorted(self.driver.state.attempts):
                self._tell(events.AttemptStarted(attempt_id))
                self.driver.finish_attempt(attempt_id)
                self._take_note()
            self._check()
            self._pass(0.5)
        self._readers_leave()
        state = self.driver.state
        left = [task.task_id for task in state.tasks.values() if not task.is_finished]
        assert not left, f"never ended: {left}"
        assert not state.attempts
        assert not state.lost_sight
        assert state.lost_sight_until is None
        assert all(not worker.attempts for worker in state.fleet.workers.values())
        assert {request.task_id for request in self.accepted} <= self.terminals.keys(), "accepted is accepted"
        held = {run.attempt_id for runs in self.runs.values() for run in runs}
        assert held <= self.released, f"the workers still hold {held - self.released}"

    def _readers_leave(self) -> None:
        for task in list(self.driver.state.tasks.values()):
            for _ in range(task.readers):
                self._tell(events.ReaderLeft(task.task_id))

    # What has to hold.

    def _check(self) -> None:
        state = self.driver.state
        for worker in state.fleet.workers.values():
            assert len(worker.attempts) <= SLOTS, "a slot was used twice"
            assert all(state.attempts[attempt_id].worker_id == worker.worker_id for attempt_id in worker.attempts)
        running = Counter(attempt.task_id for attempt in state.attempts.values())
        for task in state.tasks.values():
            assert (task.state is TaskState.QUEUED) == (task.task_id in state.queue)
            assert task.state is not TaskState.RUNNING or running[task.task_id]
            assert task.task_id not in state.lost_sight or task.state is TaskState.QUEUED or task.is_finished

    def _pass(self, seconds: float) -> None:
        self.driver.let_pass(seconds)
        self._take_note()

    def _tell(self, event: events.Event) -> None:
        try:
            self.driver.handle(event)
        except LlorchError as error:
            if error.reason not in (Reason.RECOVERING, Reason.TASK_NOT_FOUND, Reason.EXPIRED):
                raise
        self._take_note()

    def _take_note(self) -> None:
        taken, self.driver.effects = self.driver.effects, []
        for effect in taken:
            match effect:
                case effects.OpenLog(request) | effects.OpenFoundLog(request):
                    assert request.task_id not in self.opened, f"{request.task_id} is opened twice"
                    self.opened.add(request.task_id)
                case effects.AppendTerminal(request):
                    self._ended(request.task_id)
                case effects.PersistTerminal(task_id):
                    self._ended(task_id)
                    self._tell(events.TerminalPersisted(task_id))
                case effects.CancelRun(_, attempt_id):
                    self._tell(events.AttemptUnknown(attempt_id))
                case effects.ReleaseRuns(_, attempt_ids):
                    self.released |= set(attempt_ids)
                case effects.CountLostOutput(attempt_id):
                    self._tell(events.LostOutputCounted(attempt_id, 1))

    def _ended(self, task_id: str) -> None:
        """A durable one is kept, and then shown."""
        self.terminals[task_id] += 1
        durable = self.driver.state.tasks[task_id].request.durable
        assert self.terminals[task_id] <= 1 + durable, f"{task_id} has a second terminal"


@pytest.mark.req("ORCH-1008", "ORCH-1009")
@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_whatever_comes_first_each_task_ends_once(first: int) -> None:
    for seed in range(first, min(first + 50, SEEDS)):
        try:
            Restart(seed).go()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
