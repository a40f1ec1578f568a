"""The link from the orchestrator to one worker, and what runs there."""

from functools import partial
from typing import TYPE_CHECKING

from llorch.errors import Reason
from llorch.finish_reason import FinishReason
from llorch.worker_state import WorkerState
from orchestratord.core import events
from orchestratord.core.effects import StartRun
from orchestratord.core.facts.found_run import FoundRun
from orchestratord.core.facts.task import ChoiceEnd, RunResult, TaskError
from orchestratord.simulation.process import Process, SimulatedRun
from orchestratord.simulation.schedule import Action, Wire
from orchestratord.simulation.task_logs import PARTS, AnswerPart, tokens_in_part
from orchestratord.simulation.violation import Violation

if TYPE_CHECKING:
    from orchestratord.simulation.world import World

ATTACH_AGAIN_AFTER_S = 0.7
CANCEL_IS_HEARD_WITHIN_S = 0.5
DETACH_GRACE_S = 20.0


class SimulatedLink:
    """Exists from AttachWorker to DetachWorker. The worker sends again on attaching what was not read before."""

    def __init__(self, world: "World", process: Process) -> None:
        self.world = world
        self.process = process
        self.line: Wire | None = None
        self.is_wanted = False
        self.cannot_be_reached_until = 0.0
        self._attached_at = 0.0
        self._cancelled: dict[str, float] = {}
        self._attempts: set[str] = set()
        """Those that the orchestrator holds to be there."""
        self._starting: set[str] = set()

    # What the brain wants.

    def attach(self) -> None:
        self.is_wanted = True
        self.world.schedule.after(self.world.delay_s(), self._try_to_attach)

    def detach(self) -> None:
        self.is_wanted = False
        self._cut()

    def start_run(self, effect: StartRun) -> None:
        request = effect.request
        tokens_in, tokens_out = self.world.tokens_of(request.task_id)
        begins_at = self.world.logs.parts_of(request.task_id)
        run = SimulatedRun(effect.attempt_id, request.task_id, tokens_in, tokens_out, begins_at)
        self._attempts.add(effect.attempt_id)
        self._starting.add(effect.attempt_id)
        self.world.schedule.after(self.world.delay_s(), lambda: self._start_arrives(run))

    def cancel_run(self, attempt_id: str) -> None:
        self._cancelled.setdefault(attempt_id, self.world.schedule.now)

        def arrive() -> None:
            run = self.process.runs.get(attempt_id)
            if run is None:
                self.process.tombstones.add(attempt_id)
            elif run.is_active:
                self._end(run, FinishReason.CANCELLED)

        self._call(arrive)

    def release_runs(self, attempt_ids: tuple[str, ...]) -> None:
        self._attempts.difference_update(attempt_ids)

        def arrive() -> None:
            for attempt_id in attempt_ids:
                self.process.tombstones.add(attempt_id)
                run = self.process.runs.pop(attempt_id, None)
                if run is not None and run.is_active:  # it is cancelled, and no link tells of its end
                    run.outcome = RunResult((ChoiceEnd(0, FinishReason.CANCELLED),))

        self._call(arrive)

    # What happens to it.

    def breaks(self, for_s: float) -> None:
        """Frames stop; the orchestrator notices and tries to attach again."""
        self.cannot_be_reached_until = self.world.schedule.now + for_s
        if self.line is not None:
            self._cut()
            self._is_silent()

    def process_exited(self) -> None:
        if self.line is not None:
            self._cut()
            self.world.schedule.after(self.world.delay_s(), self._is_silent)

    @property
    def _reachable(self) -> bool:
        return self.process.is_alive and self.world.schedule.now >= self.cannot_be_reached_until

    def _cut(self) -> None:
        if self.line is not None:
            self.line.cut()
            self.line = None
            cut_at = self.world.schedule.now
            self.world.schedule.after(DETACH_GRACE_S, lambda: self._give_up(cut_at))

    def _give_up(self, cut_at: float) -> None:
        """The worker had no reader for so long: what runs there is cancelled."""
        if self.line is None and self._attached_at <= cut_at and self.process.is_alive:
            for run in self.process.runs.values():
                if run.is_active:
                    self._end(run, FinishReason.CANCELLED)

    def _is_silent(self) -> None:
        if self.is_wanted:
            self.world.tell(events.WorkerSilent(self.process.worker_id))
            self.world.schedule.after(ATTACH_AGAIN_AFTER_S, self._try_to_attach)

    def _try_to_attach(self) -> None:
        if not self.is_wanted or self.line is not None:
            return
        if not self._reachable:
            self._is_silent()
            return
        self.line = Wire(self.world.schedule, self.world.delay_s)
        self._attached_at = self.world.schedule.now
        self._send(events.RunsFound(self.process.worker_id, tuple(map(FoundRun, self.process.runs))))
        self._send(events.WorkerAttached(self.process.worker_id))
        for attempt_id in sorted(self._attempts - self._starting - self.process.runs.keys()):
            self._send(events.AttemptUnknown(attempt_id))
        for run in self.process.runs.values():
            for said in run.said:
                self._send_of(run, said)

    def _send(self, event: events.Event) -> None:
        if self.line is not None:
            self.line.send(lambda: self.world.tell_perhaps_twice(event))

    def _send_of(self, run: SimulatedRun, said: events.Event | AnswerPart) -> None:
        """Output goes into the log, and the brain hears what came of that."""
        if not isinstance(said, AnswerPart):
            self._send(said)
        elif self.line is not None:
            self.line.send(lambda: self._take_in(run, said))

    def _take_in(self, run: SimulatedRun, part: AnswerPart) -> None:
        for event in self.world.logs.append(run.task_id, run.attempt_id, part):
            self.world.tell(event)

    # Runs.

    def _start_arrives(self, run: SimulatedRun) -> None:
        process = self.process
        self._starting.discard(run.attempt_id)
        if not self._reachable:
            # Whether it arrived is not known to the caller: it cancels, so that it can't start later.
            process.tombstones.add(run.attempt_id)
            self.world.schedule.after(self.world.delay_s(), lambda: self._tell(events.AttemptUnknown(run.attempt_id)))
        elif process.state is not WorkerState.READY or run.attempt_id in process.tombstones:
            refused = TaskError(Reason.DRAINING, "the worker is stopping, or the run was cancelled")
            self._tell(events.AttemptEnded(run.attempt_id, refused))
        elif run.tokens_in >= process.spec.context_per_slot:
            told = f"the prompt has {run.tokens_in} tokens, and a request may use {process.spec.context_per_slot}"
            self._tell(events.AttemptEnded(run.attempt_id, TaskError(Reason.CONTEXT_TOO_LONG, told)))
        elif run.attempt_id not in process.runs:
            process.runs[run.attempt_id] = run
            self.world.watch.run_began(process, run)
            self._say(run, events.AttemptStarted(run.attempt_id, run.tokens_in))
            run.prefill_s, run.decode_s = process.seconds_for(run)
            for seq in range(run.begins_at, PARTS):
                share = (seq - run.begins_at + 1) / (PARTS - run.begins_at + 1)
                self.world.schedule.after(run.prefill_s + run.decode_s * share, partial(self._makes, run, seq))
            self.world.schedule.after(run.prefill_s + run.decode_s, lambda: self._end(run, FinishReason.EOS))

    def _makes(self, run: SimulatedRun, seq: int) -> None:
        if not run.is_active or not self.process.is_alive:
            return
        if seq == self.world.work[run.task_id].fatal_part:
            self.world.watch.ended_its_worker(self.process, run.task_id)
            self.world.managers[self.process.node_id].exits(self.process, "killed by signal 6 (SIGABRT)")
        else:
            self._say(run, AnswerPart(seq, tokens_in_part(seq, run.tokens_out)))

    def _end(self, run: SimulatedRun, reason: FinishReason) -> None:
        if not run.is_active or not self.process.is_alive:
            return
        if reason is FinishReason.EOS:
            self._check_not_cancelled(run)
        shown = run.tokens_out * run.begins_at // PARTS
        tokens_out = run.tokens_out - shown if reason is FinishReason.EOS else 0
        run.outcome = RunResult(
            (ChoiceEnd(0, reason, tokens_out),),
            run.tokens_in,
            tokens_out,
            decode_ms=round(run.decode_s * 1000) if tokens_out else 0,
            prefill_ms=round(run.prefill_s * 1000) if tokens_out else 0,
        )
        self._say(run, events.AttemptEnded(run.attempt_id, run.outcome))

    def _check_not_cancelled(self, run: SimulatedRun) -> None:
        """A cancel may get lost while the worker can't be reached; not for longer."""
        cancelled_at = self._cancelled.get(run.attempt_id)
        if cancelled_at is None or self.line is None:
            return
        heard_by = max(cancelled_at, self._attached_at) + CANCEL_IS_HEARD_WITHIN_S
        if self.world.schedule.now > heard_by + 2 * self.world.plan.faults.late_s:
            raise Violation(self.world, f"{run.attempt_id} ran to its end although it was cancelled")

    def _say(self, run: SimulatedRun, said: events.Event | AnswerPart) -> None:
        run.said.append(said)
        self._send_of(run, said)

    def _tell(self, event: events.Event) -> None:
        self.world.tell_perhaps_twice(event)

    def _call(self, arrive: Action) -> None:
        """A command without an answer: it gets lost if the worker can't be reached when it comes."""

        def arrive_if_reachable() -> None:
            if self._reachable:
                arrive()

        self.world.schedule.after(self.world.delay_s(), arrive_if_reachable)
