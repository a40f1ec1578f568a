"""Memory: what is really there, and what the brain was told, always suffices for what it wants loaded."""

from typing import TYPE_CHECKING, NoReturn

from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.simulation.host import Host
from orchestratord.simulation.process import Process
from orchestratord.simulation.violation import Violation

if TYPE_CHECKING:
    from support.simulation.world import World


class MemoryRules:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._measured: dict[str, tuple[int, ...]] = {}
        """By worker: what the brain was told that it takes."""

    def heard(self, event: events.Event) -> None:
        if not isinstance(event, events.NodeReported | events.NodeRegistered):
            return
        for told in event.snapshot.workers:
            if told.state is WorkerState.READY and told.engine is not None:
                self._measured[told.spec.worker_id] = told.engine.memory_mib

    def wants(self, effect: effects.Effect) -> None:
        if isinstance(effect, effects.StartWorker):
            self._check_fits(effect)

    def process_began(self, host: Host, process: Process) -> None:
        if len(process.spec.device_ids) != len(process.spec.reservation_mib):
            self._fail(f"{process.worker_id} reserves {process.spec.reservation_mib} of {process.spec.device_ids}")
        if len(set(process.spec.device_ids)) != len(process.spec.device_ids):
            self._fail(f"{process.worker_id} is to use a device twice: {process.spec.device_ids}")

    def ran_out_of_memory(self, host: Host, process: Process) -> None:
        """Only another program may have been faster."""
        if not any(host.cards[device_id].other_program_mib for device_id in process.spec.device_ids):
            self._fail(f"{process.spec.model} found its memory on {process.spec.device_ids} taken by our own")

    def at_rest(self) -> None:
        if differences := self.differences():
            self._fail("; ".join(differences))

    def differences(self) -> list[str]:
        """The brain has to know the workers that there are, and each of them to hold memory in its ledger."""
        state, found = self._world.brain.state, []
        for manager in self._world.managers.values():
            node_id = manager.host.node_id
            there = {process.worker_id for process in manager.host.processes.values() if process.is_alive}
            known = {worker.worker_id for worker in state.fleet.workers.values() if worker.node_id == node_id}
            if there != known:
                found.append(f"on {node_id} are {sorted(there)}, the brain knows {sorted(known)}")
            for device_id in manager.host.cards:
                holders = {process.worker_id for process in manager.host.on_card(device_id) if process.is_alive}
                booked = set(state.ledger.loads_on((node_id, device_id)))
                if holders != booked:
                    found.append(f"{device_id} is held by {sorted(holders)}, the ledger says {sorted(booked)}")
        return found

    def _check_fits(self, effect: effects.StartWorker) -> None:
        """What lives there, is on its way, or is wanted now has to fit beside what others were told to use."""
        manager = self._world.managers[effect.node_id]
        host = manager.host
        for device_id, wanted_mib in zip(effect.spec.device_ids, effect.spec.reservation_mib, strict=True):
            claimed = sum(
                self._claim(process.spec, device_id) for process in host.on_card(device_id) if process.is_alive
            )
            on_the_way = sum(self._claim(start.spec, device_id) for start in manager.in_flight.values())
            card, (told_programs_mib, _) = host.cards[device_id], host.told.get(device_id, (0, 0))
            room = card.capacity_mib - told_programs_mib - card.lingering_mib
            if claimed + on_the_way + wanted_mib > room:
                self._fail(
                    f"{effect.spec.model} is to take {wanted_mib} MiB of {device_id}, which has room for {room} MiB, "
                    f"and {claimed + on_the_way} MiB of it are spoken for"
                )

    def _claim(self, spec: WorkerSpec, device_id: str) -> int:
        """What a worker may take of a device: the larger of what was reserved and what was told to be measured."""
        index = spec.device_ids.index(device_id) if device_id in spec.device_ids else -1
        if index < 0:
            return 0
        measured = self._measured.get(spec.worker_id)
        return max(spec.reservation_mib[index], measured[index] if measured else 0)

    def _fail(self, what: str) -> NoReturn:
        raise Violation(self._world, what)
