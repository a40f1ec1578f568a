"""What goes wrong, and how it heals."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestratord.core import events
from orchestratord.core.facts.drains import AfterDrain
from orchestratord.simulation.host import Card
from orchestratord.simulation.pool_manager import PoolManager
from orchestratord.simulation.process import Process
from orchestratord.simulation.violation import Violation

if TYPE_CHECKING:
    from support.simulation.world import World


class Faults:
    def __init__(self, world: "World") -> None:
        self.world = world
        self._drained: set[str] = set()

    def begin(self) -> None:
        faults = self.world.plan.faults
        self._now_and_then(faults.node_cut_off, self._cut_off)
        self._now_and_then(faults.pool_manager_restarts, self._restart)
        self._now_and_then(faults.worker_crashes, self._crash)
        self._now_and_then(faults.worker_link_breaks, self._break_link)
        self._now_and_then(faults.other_program_comes, self._other_program_comes)
        self._now_and_then(faults.pool_drains, self._drain)

    def end(self) -> None:
        """From now on everything works; hosts that were away come back, and drained pools are put to work."""
        self.world.is_disturbed = False
        for pool_id in sorted(self._drained):
            self._put_to_work(pool_id)
        for manager in self.world.managers.values():
            for card in manager.host.cards.values():
                card.other_program_mib = 0
            manager.connect_if_gone()
        for link in self.world.links.values():
            link.cannot_be_reached_until = 0.0

    def _now_and_then(self, rate: float, fault: Callable[[], None]) -> None:
        if not rate:
            return

        def strike() -> None:
            if self.world.is_disturbed:
                fault()
                self._now_and_then(rate, fault)

        self.world.schedule.after(self.world.random.expovariate(rate), strike)

    def _cut_off(self) -> None:
        """The network to a host fails; what it had sent may still arrive, even after it is back with a new link."""
        manager = self._some_manager()
        if manager is None:
            return
        old_session, old = manager.host.session, manager.host.snapshot(full=True)
        manager.disconnect(lose_what_is_under_way=self.world.happens(0.5))
        sequence = manager.host.applied_command_seq

        def come_back() -> None:
            if not manager.is_connected:
                manager.connect()
                stale = events.NodeReported(manager.host.node_id, old_session, sequence, old)
                self.world.schedule.after(self.world.random.uniform(0.1, 3), lambda: self._arrives_late(manager, stale))

        self.world.schedule.after(self.world.random.choice([0.3, 3.0, 8.0, 20.0]), come_back)

    def _arrives_late(self, manager: PoolManager, stale: events.NodeReported) -> None:
        """Over its own link it would have come in order; it matters only when the brain knows another one."""
        if manager.heard_session != stale.session and self.world.tell(stale):
            raise Violation(self.world, f"a report of {stale.node_id} over an old link was believed")

    def _restart(self) -> None:
        """The pool manager comes again as another process: mostly with its workers, sometimes the machine went down."""
        manager = self._some_manager()
        if manager is None:
            return
        if self.world.happens(0.3):
            for process in list(manager.host.processes.values()):
                process.is_alive = False
                self.world.link_of(process).process_exited()
            manager.host.processes.clear()
            manager.host.boots += 1
            for card in manager.host.cards.values():
                card.lingering_mib = 0
        manager.disconnect(lose_what_is_under_way=True)
        manager.host.instance += 1
        manager.host.applied_command_seq = 0
        self.world.schedule.after(self.world.random.uniform(0.1, 2), manager.connect_if_gone)

    def _crash(self) -> None:
        if alive := self._living():
            process = self.world.random.choice(alive)
            self.world.managers[process.node_id].exits(process, "killed by signal 11 (SIGSEGV)")

    def _break_link(self) -> None:
        if alive := self._living():
            process = self.world.random.choice(alive)
            self.world.link_of(process).breaks(self.world.random.choice(self.world.plan.faults.link_breaks_for_s))

    def _other_program_comes(self) -> None:
        """The owner of the host starts a game on one of the devices."""
        manager = self._some_manager()
        if manager is None:
            return
        card = self.world.random.choice(list(manager.host.cards.values()))
        taken = self.world.random.choice([500, 3000, card.plan.total_mib // 2])
        card.other_program_mib += taken
        manager.report()
        self.world.schedule.after(
            self.world.random.uniform(2, 12), lambda: self._other_program_goes(manager, card, taken)
        )

    def _other_program_goes(self, manager: PoolManager, card: Card, taken: int) -> None:
        if self.world.is_disturbed:
            card.other_program_mib -= taken
            manager.report()

    def _drain(self) -> None:
        """An operator empties a pool: what runs there has to go on elsewhere, soon or at once."""
        manager = self._some_manager()
        if manager is None:
            return
        pool_id, random = manager.host.pool_id, self.world.random
        after = random.choice([AfterDrain.STAY, AfterDrain.RELOAD])
        if self.world.tell(events.PoolDrainAsked(pool_id, random.choice([0.0, 0.5, 3.0]), after=after)):
            self._drained.add(pool_id)
            self.world.schedule.after(random.uniform(1, 8), lambda: self._put_to_work(pool_id))

    def _put_to_work(self, pool_id: str) -> None:
        """Again, until it is: the store may refuse it, or may not have answered for another change yet."""
        drain = self.world.brain.state.drains.find(pool_id)
        if drain is None:
            self._drained.discard(pool_id)
            return
        if drain.after is not AfterDrain.RELOAD:
            self.world.tell(events.PoolDrainAsked(pool_id, 0.0, after=AfterDrain.RELOAD))
        self.world.schedule.after(1.0, lambda: self._put_to_work(pool_id))

    def _some_manager(self) -> PoolManager | None:
        connected = [manager for manager in self.world.managers.values() if manager.is_connected]
        return self.world.random.choice(connected) if connected else None

    def _living(self) -> list[Process]:
        return [
            process
            for manager in self.world.managers.values()
            for process in manager.host.processes.values()
            if process.is_alive
        ]
