"""What the brain is measured against: first come, first served, and the least recently used model leaves.

It takes the place of the brain in a simulated world, and is told and obeyed as the brain is.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.brain import Handled
from orchestratord.core.facts.fleet import Leaving, WorkerReported
from orchestratord.core.facts.ledger import DeviceKey
from orchestratord.core.facts.model import ModelSpec
from orchestratord.core.facts.task import TaskEnd, TaskError, TaskRequest

CONTEXT = 4096
"""In tokens, where a model does not say."""


@dataclass
class PeerWorker:
    """`is_ready`: the link to it is there."""

    spec: WorkerSpec
    device: DeviceKey
    is_ready: bool = False
    is_leaving: bool = False
    last_used_at: float = 0.0
    runs: dict[str, TaskRequest] = field(default_factory=dict)

    @property
    def takes_runs(self) -> bool:
        return self.is_ready and not self.is_leaving and len(self.runs) < self.spec.slots


@dataclass
class LeastRecentlyUsed:
    """One worker of a model at most, on one device. A worker that is idle, and for which no task waits, leaves for the
    oldest task whose model is not loaded: on the device where what would leave has not been used for longest.
    """

    tasks: dict[str, Any] = field(default_factory=dict)
    """Always empty: what it admits it does not keep."""
    _models: dict[str, ModelSpec] = field(default_factory=dict)
    _capacity: dict[DeviceKey, int] = field(default_factory=dict)
    _workers: dict[str, PeerWorker] = field(default_factory=dict)
    _waiting: dict[str, deque[tuple[int, TaskRequest]]] = field(default_factory=dict)
    """By model, each with its number among all that have come."""
    _chosen: dict[str, DeviceKey] = field(default_factory=dict)
    """Where a model is loaded as soon as the memory is back."""
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _now: float = 0.0

    @property
    def state(self) -> "LeastRecentlyUsed":
        """What the world asks the brain's state for."""
        return self

    def handle(self, event: events.Event, now: float) -> Handled:
        self._now = now
        wanted = list(self._after(event))
        return Handled([*wanted, *self._dispatch(), *self._load()], None)

    def _after(self, event: events.Event) -> Iterator[effects.Effect]:
        match event:
            case events.ModelRegistered(spec=spec):
                self._models[spec.name] = spec
            case (
                events.NodeRegistered(node_id=node_id, snapshot=snapshot)
                | events.NodeReported(node_id=node_id, snapshot=snapshot)
            ):
                for device in snapshot.devices:
                    self._capacity[node_id, device.device_id] = device.total_mib - device.reserve_mib
                for told in snapshot.workers:
                    yield from self._worker_is(told)
            case events.WorkerAttached(worker_id=worker_id) if worker := self._workers.get(worker_id):
                worker.is_ready, worker.last_used_at = True, self._now
            case events.TaskSubmitted(request=request):
                self._waiting.setdefault(request.model, deque()).append((next(self._numbers), request))
                yield effects.OpenLog(request, 0)
            case events.AttemptEnded(attempt_id=attempt_id, outcome=outcome):
                yield from self._ended(
                    attempt_id, TaskEnd(outcome, 0, 0) if not isinstance(outcome, TaskError) else outcome
                )

    def _worker_is(self, told: WorkerReported) -> Iterator[effects.Effect]:
        worker = self._workers.get(told.spec.worker_id)
        if worker is None:
            return
        if told.state is WorkerState.EXITED:
            del self._workers[told.spec.worker_id]
            yield effects.DetachWorker(told.spec.worker_id)
        elif told.state is WorkerState.READY and told.endpoint is not None and not worker.is_ready:
            yield effects.AttachWorker(told.spec.worker_id, told.endpoint)

    def _ended(self, attempt_id: str, terminal: TaskEnd | TaskError) -> Iterator[effects.Effect]:
        for worker in self._workers.values():
            if request := worker.runs.pop(attempt_id, None):
                worker.last_used_at = self._now
                yield effects.ReleaseRuns(worker.spec.worker_id, (attempt_id,))
                yield effects.AppendTerminal(request, terminal)

    def _dispatch(self) -> Iterator[effects.Effect]:
        for worker in self._workers.values():
            waiting = self._waiting.get(worker.spec.model)
            while waiting and worker.takes_runs:
                _, request = waiting.popleft()
                attempt_id = f"attempt-{next(self._numbers)}"
                worker.runs[attempt_id] = request
                yield effects.StartRun(worker.spec.worker_id, attempt_id, request, None)

    def _load(self) -> Iterator[effects.Effect]:
        there = {worker.spec.model for worker in self._workers.values() if not worker.is_leaving}
        wanted = [name for name, waiting in self._waiting.items() if waiting and name not in there]
        for name in sorted(wanted, key=lambda name: self._waiting[name][0][0]):
            if name not in self._chosen:
                yield from self._choose(name)
        for name, device in list(self._chosen.items()):
            taken = sum(_claim(worker) for worker in self._workers.values() if worker.device == device)
            if self._claim_of(name) <= self._capacity[device] - taken:
                del self._chosen[name]
                yield self._start(name, device)

    def _choose(self, name: str) -> Iterator[effects.Effect]:
        """The device with most room, if one has enough; else the one whose youngest victim was used least recently."""
        found = []
        for device, capacity in self._capacity.items():
            victims = self._victims(device, self._claim_of(name))
            if capacity >= self._claim_of(name) and victims is not None:
                last_used_at = max((worker.last_used_at for worker in victims), default=-1.0)
                found.append((last_used_at, -self._room(device), device, victims))
        if not found:
            return
        _, _, self._chosen[name], victims = min(found, key=lambda one: one[:3])
        for worker in victims:
            worker.is_leaving = True
            yield effects.StopWorker(worker.device[0], worker.spec.worker_id, Leaving.EVICTED)

    def _victims(self, device: DeviceKey, claim_mib: int) -> list[PeerWorker] | None:
        """The least recently used, and of those only what has to go; None if that is not enough."""
        room = self._room(device)
        idle = [
            worker
            for worker in self._workers.values()
            if worker.device == device
            and worker.is_ready
            and not (worker.is_leaving or worker.runs or self._waiting.get(worker.spec.model))
        ]
        victims: list[PeerWorker] = []
        for worker in sorted(idle, key=lambda worker: worker.last_used_at):
            if room >= claim_mib:
                break
            victims.append(worker)
            room += _claim(worker)
        for worker in tuple(victims):
            if room - _claim(worker) >= claim_mib:
                victims.remove(worker)
                room -= _claim(worker)
        return victims if room >= claim_mib else None

    def _room(self, device: DeviceKey) -> int:
        """Once all that leave have left, and without what was chosen for it."""
        stay = sum(_claim(one) for one in self._workers.values() if one.device == device and not one.is_leaving)
        come = sum(self._claim_of(name) for name, chosen in self._chosen.items() if chosen == device)
        return self._capacity[device] - stay - come

    def _claim_of(self, name: str) -> int:
        return self._models[name].vram_claim_mib or 0

    def _start(self, name: str, device: DeviceKey) -> effects.StartWorker:
        model, (node_id, device_id) = self._models[name], device
        spec = WorkerSpec(
            f"worker-{next(self._numbers)}",
            name,
            model.source,
            (device_id,),
            model.slots or 1,
            model.context or CONTEXT,
            reservation_mib=(self._claim_of(name),),
        )
        self._workers[spec.worker_id] = PeerWorker(spec, device)
        return effects.StartWorker(node_id, spec)


def _claim(worker: PeerWorker) -> int:
    (mib,) = worker.spec.reservation_mib
    return mib
