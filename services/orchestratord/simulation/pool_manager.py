"""The pool manager of a host, and its link to the brain: reports up, commands down."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from llorch.errors import Reason
from llorch.worker_state import WorkerState
from orchestratord.core import events
from orchestratord.core.effects import DeleteStagedModel, StageModel, StartWorker, StopWorker
from orchestratord.simulation.host import Host
from orchestratord.simulation.process import Process
from orchestratord.simulation.schedule import Wire

if TYPE_CHECKING:
    from orchestratord.simulation.world import World

HEARTBEAT_S = 1.0
HEARTBEATS_PER_FULL_REPORT = 15
CALL_TIMES_OUT_AFTER_S = 3.0
CONNECTS_AGAIN_AFTER_S = 0.5
START_S = 0.5
"""Of a process, before it reads the model."""
UNLOAD_S = 0.3
SLOW_LOAD_S = 60.0
"""What a load takes longer at most: all has to end before the world does."""

CRASH_IS_SEEN_AFTER_S = 0.02


class PoolManager:
    def __init__(self, world: "World", host: Host) -> None:
        self.world = world
        self.host = host
        self._commands = 0
        self._calls = Wire(world.schedule, world.delay_s)
        self.heard_session = ""
        """The newest session that the brain knows of."""
        self._registered_instance = 0
        """The one that the brain knows; until it has registered, a pool manager takes no commands."""
        self.in_flight: dict[str, StartWorker] = {}
        """Starts that the brain wants and the host has not taken up yet."""

    # The link.

    def connect(self) -> None:
        """A new session; the newest wins, and messages of an older one may still be on their way."""
        host = self.host
        host.session = f"{host.node_id}-{self.world.next_number()}"
        host.line = Wire(self.world.schedule, self.world.delay_s)
        snapshot, samples = host.snapshot(full=True), host.samples()
        registered = events.NodeRegistered(
            node_id=host.node_id,
            session=host.session,
            instance_id=f"{host.node_id}-pm{host.instance}",
            address=f"{host.node_id}:9200",
            version="0",
            snapshot=snapshot,
            applied_command_seq=host.applied_command_seq,
        )
        instance = host.instance

        def arrive() -> None:
            self._registered_instance, self.heard_session = instance, registered.session
            self._tell(registered, samples)

        host.line.send(arrive)
        self.world.schedule.after(HEARTBEAT_S, lambda: self._beat(registered.session))

    def disconnect(self, *, lose_what_is_under_way: bool) -> None:
        if self.host.line is not None and lose_what_is_under_way:
            self.host.line.cut()
        self.host.line = None

    @property
    def is_connected(self) -> bool:
        return self.host.line is not None

    def report(self, only: Process | None = None, *, full: bool = False) -> None:
        host = self.host
        if host.line is None:
            return
        host.reports_sent += 1
        snapshot, samples = host.snapshot(full=full, only=only), host.samples()
        message = events.NodeReported(host.node_id, host.session, host.applied_command_seq, snapshot)
        host.line.send(lambda: self._tell(message, samples))
        if self.world.happens(self.world.plan.faults.duplicate):
            host.line.send(lambda: self._tell(message, samples))

    def _tell(self, message: events.NodeRegistered | events.NodeReported, samples: dict[str, tuple[int, int]]) -> None:
        before, self.host.told = self.host.told, samples
        if not self.world.tell(message):
            self.host.told = before
            self._link_is_over(message.session)

    def _link_is_over(self, session: str) -> None:
        """The brain holds another link to be the newest; where that is wrong, the host comes with a newer one."""
        if self.is_connected and self.host.session == session:
            self.disconnect(lose_what_is_under_way=True)
            self.world.schedule.after(CONNECTS_AGAIN_AFTER_S, self.connect_if_gone)

    def connect_if_gone(self) -> None:
        if not self.is_connected:
            self.connect()

    def _beat(self, session: str) -> None:
        if self.host.session != session or self.host.line is None:
            return
        self.report(full=self.host.reports_sent % HEARTBEATS_PER_FULL_REPORT == 0)
        self.world.schedule.after(HEARTBEAT_S, lambda: self._beat(session))

    # Commands. Each is a call: it arrives or not, and then its answer does or not.

    def stage(self, effect: StageModel) -> None:
        model = self.world.model_of_source(effect.source)
        takes_s = 0.0 if effect.source in self.host.staged else 0.2

        def carry_out() -> events.Event:
            self.host.staged[effect.source] = model.claim_mib
            return events.ModelStaged(self.host.node_id, effect.source, model.claim_mib)

        def fail() -> events.Event:
            return events.StagingFailed(
                self.host.node_id, effect.source, Reason.UPSTREAM_UNAVAILABLE, "the node did not answer"
            )

        self._call(carry_out, fail, takes_s)

    def start(self, effect: StartWorker) -> None:
        spec = effect.spec
        sequence = self._next_command()
        self.in_flight[spec.worker_id] = effect

        def carry_out() -> events.Event:
            self.in_flight.pop(spec.worker_id, None)
            self._applied(sequence)
            if spec.worker_id in self.host.stopped_before_start:
                return events.WorkerStartFailed(spec.worker_id, Reason.DRAINING, "it was stopped before")
            if spec.worker_id not in self.host.processes:
                self._exec(effect)
            return events.WorkerStartAccepted(spec.worker_id, sequence)

        def fail() -> events.Event:
            self.in_flight.pop(spec.worker_id, None)
            return events.WorkerStartFailed(
                spec.worker_id, Reason.UPSTREAM_UNAVAILABLE, "the node did not answer", sequence
            )

        self._call(carry_out, fail)

    def stop(self, effect: StopWorker) -> None:
        sequence = self._next_command()

        def carry_out() -> None:
            self._applied(sequence)
            process = self.host.processes.get(effect.worker_id)
            if process is None:
                self.host.stopped_before_start.add(effect.worker_id)
            elif process.is_alive and process.state is not WorkerState.STOPPING:
                process.state = WorkerState.STOPPING
                self.report(process)
                self.world.schedule.after(UNLOAD_S, lambda: self.exits(process, ""))

        self._call(carry_out, lambda: None)

    def delete_staged(self, effect: DeleteStagedModel) -> None:
        def carry_out() -> None:
            self.host.staged.pop(effect.source, None)

        self._call(carry_out, lambda: None)

    def exits(self, process: Process, failure: str) -> None:
        """The process is no more at once. A failure is told right away, an end that was asked for when the memory is
        back.
        """
        if not process.is_alive:
            return
        lingers_s = self.world.plan.faults.memory_returns_after_s * self.world.random.random()
        for device_id in process.spec.device_ids:
            self._linger(process, device_id, lingers_s)
        process.is_alive, process.failure = False, failure
        self.world.link_of(process).process_exited()
        self.world.schedule.after(CRASH_IS_SEEN_AFTER_S if failure else lingers_s, lambda: self._report_end(process))

    def _linger(self, process: Process, device_id: str, seconds: float) -> None:
        card, mib = self.host.cards[device_id], process.holds_mib(device_id)
        card.lingering_mib += mib
        boots = self.host.boots

        def give_back() -> None:
            if self.host.boots == boots:
                card.lingering_mib -= mib

        self.world.schedule.after(seconds, give_back)

    def _report_end(self, process: Process) -> None:
        if self.host.processes.get(process.worker_id) is process:
            self.report(process)
            del self.host.processes[process.worker_id]

    def _exec(self, effect: StartWorker) -> None:
        world, spec = self.world, effect.spec
        model = world.models[spec.model]
        needs_mib = tuple(
            round(model.needs_mib * mib / max(1, sum(spec.reservation_mib))) for mib in spec.reservation_mib
        )
        devices = [self.host.cards[device_id].plan for device_id in spec.device_ids]
        process = Process(
            node_id=self.host.node_id,
            spec=spec,
            needs_mib=needs_mib,
            started_at=world.schedule.now,
            decode_tokens_per_s=model.tokens_per_s(devices),
            fingerprint=self.host.fingerprint_of(spec),
        )
        self.host.processes[spec.worker_id] = process
        world.watch.process_began(self.host, process)
        seconds = START_S + model.needs_mib / self.host.plan.disk_mib_per_s
        if world.happens(world.plan.faults.load_is_slow) and world.is_disturbed:
            seconds = min(8 * seconds, seconds + SLOW_LOAD_S)
        world.schedule.after(seconds, lambda: self._loaded(process))

    def _loaded(self, process: Process) -> None:
        if not process.is_alive or process.state is not WorkerState.STARTING:
            return
        if not self.host.fits(process):
            self.world.watch.ran_out_of_memory(self.host, process)
            self.exits(process, "out of memory")
        elif self.world.happens(self.world.plan.faults.load_fails):
            self.exits(process, "the engine refused the file")
        else:
            process.state = WorkerState.READY
            self.report(process)

    def _call(
        self,
        carry_out: Callable[[], events.Event | None],
        fail: Callable[[], events.Event | None],
        takes_s: float = 0.0,
    ) -> None:
        """A call to the host. Its answer may get lost although it was carried out; then it looks like a failure.

        Calls go over one connection and arrive in their order; `takes_s` is how long this one takes from then on.
        """
        world, asked_of = self.world, self.host.instance

        def arrive() -> None:
            if not self.is_connected or not asked_of == self._registered_instance == self.host.instance:
                world.schedule.after(CALL_TIMES_OUT_AFTER_S, lambda: _tell_if(fail()))
                return
            if takes_s:
                world.schedule.after(takes_s, do)
            else:
                do()

        def do() -> None:
            answer = carry_out()
            if world.happens(world.plan.faults.answer_lost):
                world.schedule.after(CALL_TIMES_OUT_AFTER_S, lambda: _tell_if(fail()))
            else:
                world.schedule.after(world.delay_s(), lambda: _tell_if(answer))

        def _tell_if(answer: events.Event | None) -> None:
            if answer is not None:
                world.tell_perhaps_twice(answer)

        self._calls.send(arrive)

    def _next_command(self) -> int:
        self._commands += 1
        return self._commands

    def _applied(self, sequence: int) -> None:
        self.host.applied_command_seq = max(self.host.applied_command_seq, sequence)
