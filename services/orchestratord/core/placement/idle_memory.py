"""How much memory of a device idle and leaving workers hold: more than that no eviction can free at once."""

from collections.abc import Mapping
from dataclasses import dataclass

from llorch.worker_state import WorkerState
from orchestratord.core.facts.fleet import Worker
from orchestratord.core.facts.ledger import DeviceKey
from orchestratord.core.state import BrainState


@dataclass(slots=True)
class IdleMemory:
    """For one decision, in MiB."""

    state: BrainState
    _of_all: dict[DeviceKey, int] | None = None

    def on(self, device: DeviceKey) -> int:
        """For a few devices; workers of others are not looked at."""
        workers, ledger = self.state.fleet.workers, self.state.ledger
        found = (workers[load_id] for load_id in ledger.loads_on(device) if load_id in workers)
        return sum(ledger.held_by(worker.worker_id, device) for worker in found if _may_be_gone(worker))

    def of_all(self) -> dict[DeviceKey, int]:
        """For many: of all devices that have any. Made once."""
        if self._of_all is None:
            self._of_all = self._table()
        return self._of_all

    def is_enough(self, lacking: Mapping[DeviceKey, int]) -> bool:
        """Whether it could make up for what is lacking, by device."""
        held = self.of_all()
        return all(held.get(device, 0) >= mib for device, mib in lacking.items())

    def _table(self) -> dict[DeviceKey, int]:
        held: dict[DeviceKey, int] = {}
        for worker in self.state.fleet.workers.values():
            if worker.attempts and worker.leaving is None and worker.state is not WorkerState.STOPPING:
                continue  # of nearly all, and sooner told than by what follows
            if _may_be_gone(worker):
                for device_id in worker.spec.device_ids:
                    key = worker.node_id, device_id
                    held[key] = held.get(key, 0) + self.state.ledger.held_by(worker.worker_id, key)
        return held


def _may_be_gone(worker: Worker) -> bool:
    return worker.is_idle or not worker.serves
