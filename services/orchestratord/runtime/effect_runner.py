"""Carries out what the brain wants done. Nothing here waits: slow work is a background task that posts an event."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from llama_orch.v2 import task_event_pb2
from llorch.background import TaskSupervisor
from llorch.clock import Clock
from llorch.errors import Reason, Unavailable
from llorch.logs import get_logger
from orchestratord.convert import task_events
from orchestratord.core import effects
from orchestratord.core.events import LostOutputCounted
from orchestratord.core.facts.task import TaskError, Terminal
from orchestratord.runtime.authority import Authority
from orchestratord.runtime.brain_owner import BrainOwner
from orchestratord.runtime.control import CommandSequence
from orchestratord.runtime.keeper import Keeper
from orchestratord.runtime.node_commands import NodeCommands
from orchestratord.runtime.task_streams import TaskStreams
from orchestratord.runtime.worker_link import WorkerLink
from orchestratord.store.interface import Ending

_log = get_logger("orchestratord")


class EffectRunner:
    """One method per kind of effect; owns the links to workers and the channels to pool managers."""

    def __init__(
        self,
        owner: BrainOwner,
        streams: TaskStreams,
        keeper: Keeper,
        authority: Authority,
        clock: Clock,
        tasks: TaskSupervisor,
        node_token: str | None,
    ) -> None:
        self._owner = owner
        self._streams = streams
        self._keeper = keeper
        self._authority = authority
        self._clock = clock
        self._tasks = tasks
        self._node_token = node_token
        self._is_ending = False
        self._nodes: dict[str, NodeCommands] = {}
        self._numbered = 0
        """The highest number of a command to a node that was forgotten."""
        self._links: dict[str, _RunningLink] = {}
        self._run: dict[type, Callable[[Any], None]] = {
            effects.OpenLog: self._open_log,
            effects.OpenFoundLog: self._open_found_log,
            effects.StartPredicted: self._start_predicted,
            effects.AnnouncePlacement: self._announce_placement,
            effects.Narrate: self._narrate,
            effects.WarnOfNode: _warn_of_node,
            effects.AppendTerminal: self._append_terminal,
            effects.PersistTask: self._persist_task,
            effects.PersistPromise: lambda effect: self._keeper.keep_promise(effect.task_id, effect.promise),
            effects.PersistStop: self._persist_stop,
            effects.PersistTerminal: self._persist_terminal,
            effects.PersistRecord: self._keeper.keep_record,
            effects.PersistChange: self._keeper.keep_change,
            effects.TokensUsed: _only_watched,
            effects.PredictionJudged: _only_watched,
            effects.OnTimeJudged: _only_watched,
            effects.ForgetTask: self._forget_task,
            effects.StageModel: lambda effect: self.node(effect.node_id).stage_model(effect),
            effects.DeleteStagedModel: lambda effect: self.node(effect.node_id).delete_staged_model(effect),
            effects.ForgetSavedSession: self._forget_saved_session,
            effects.ForgetAllSavedSessions: lambda effect: self.node(effect.node_id).forget_all_saved_sessions(),
            effects.StartWorker: lambda effect: self.node(effect.node_id).start_worker(effect),
            effects.StopWorker: lambda effect: self.node(effect.node_id).stop_worker(effect),
            effects.LeaveNode: self._leave_node,
            effects.AttachWorker: self._attach_worker,
            effects.DetachWorker: self._detach_worker,
            effects.StartRun: self._start_run,
            effects.AdoptRun: self._adopt_run,
            effects.BeginAnew: lambda effect: self._streams.get(effect.task_id).begin_anew(),
            effects.CancelRun: self._cancel_run,
            effects.AttemptLost: _log_loss,
            effects.RunGaveWay: _only_watched,
            effects.WatchOutput: lambda effect: self._streams.get(effect.task_id).watch_output(effect.entries),
            effects.CountLostOutput: self._count_lost_output,
            effects.ReleaseRuns: self._release_runs,
        }

    def perform(self, effect: effects.Effect) -> None:
        self._run[type(effect)](effect)

    def node(self, node_id: str) -> NodeCommands:
        """The channel to a node's pool manager. One that was started again gets a new one: the old one has seen it go,
        and would wait before it tries to connect again. Its commands are numbered on.
        """
        node = self._owner.state.fleet.nodes[node_id]
        address, process = node.address, node.instance_id
        known = self._nodes.get(node_id)
        if known is not None and (known.address, known.process) == (address, process):
            return known
        # A node that was forgotten and comes back has seen the numbers of before.
        sequence = CommandSequence(self._authority, lambda: node_id, self._numbered)
        if known is not None:
            self._tasks.spawn(f"close the old channel to {node_id}", known.close())
            sequence = known.sequence
        commands = NodeCommands(node_id, address, process, self._node_token, sequence, self._owner.post, self._tasks)
        self._nodes[node_id] = commands
        return commands

    def link(self, worker_id: str) -> WorkerLink:
        """For reading. Raises `Unavailable` where the worker has gone."""
        running = self._links.get(worker_id)
        if running is None:
            raise Unavailable(Reason.WORKER_LOST, f"worker '{worker_id}' has gone")
        return running.link

    async def close(self) -> None:
        """Links are tasks of the supervisor and end with it; the channels to nodes end here."""
        for commands in self._nodes.values():
            await commands.close()

    def _open_log(self, effect: effects.OpenLog) -> None:
        self._streams.open(effect.request, effect.queue_position, self._clock.wall(), effect.predicted_start_ms)

    def _open_found_log(self, effect: effects.OpenFoundLog) -> None:
        admitted_at = datetime.fromtimestamp(effect.accepted_at_ms / 1000, UTC)
        self._streams.open(effect.request, 0, admitted_at)

    def _adopt_run(self, effect: effects.AdoptRun) -> None:
        self._streams.get(effect.task_id).is_found(effect.attempt_id, effect.log_epoch, effect.entries)
        self._streams.begin_attempt(effect.task_id, effect.attempt_id)
        self._links[effect.worker_id].link.adopt_run(effect.attempt_id)

    def _start_predicted(self, effect: effects.StartPredicted) -> None:
        self._streams.get(effect.task_id).predicted_start_ms = effect.predicted_start_ms

    def _announce_placement(self, effect: effects.AnnouncePlacement) -> None:
        self._streams.get(effect.task_id).note(task_events.placed_to_proto(effect.placement))

    def _narrate(self, effect: effects.Narrate) -> None:
        self._streams.get(effect.task_id).note(task_event_pb2.Narration(text=effect.text))

    def _append_terminal(self, effect: effects.AppendTerminal) -> None:
        if isinstance(effect.terminal, TaskError):
            _log.info("task_failed", task_id=effect.task_id, reason=effect.terminal.reason)
        self._streams.end(effect.request, effect.terminal)

    def _forget_task(self, effect: effects.ForgetTask) -> None:
        if self._streams.get(effect.task_id).request.durable:
            self._keeper.forget_task(effect.task_id)
        self._streams.forget(effect.task_id)

    def _persist_task(self, effect: effects.PersistTask) -> None:
        self._keeper.keep_task(effect.request)

    async def wait_kept(self, task_id: str) -> None:
        """See `Keeper.wait_task_kept`."""
        await self._keeper.wait_task_kept(task_id)

    async def wait_end_kept(self, task_id: str) -> None:
        """See `Keeper.wait_end_kept`."""
        await self._keeper.wait_end_kept(task_id)

    def begin_ending(self) -> None:
        """The orchestrator ends: from now on a durable task can be done or cancelled, but fail no more:
        `_persist_terminal`.
        """
        self._is_ending = True

    def _persist_stop(self, effect: effects.PersistStop) -> None:
        """Output may follow, and be shown. If it is not kept any more, a cursor into it must not point into what is: as
        after the start of an orchestrator, the log that is kept has an epoch of its own.
        """
        self._keeper.keep_stop(effect.task_id, self._ending(effect.task_id, effect.so_far, self._now_ms()))

    def _persist_terminal(self, effect: effects.PersistTerminal) -> None:
        """While the orchestrator ends, its pool managers and workers may end too; the next one does the task again.

        Its readers get no terminal here, and are told to come back when their calls are ended.
        """
        if self._is_ending and isinstance(effect.terminal, TaskError):
            return
        log = self._streams.end_writing(effect.task_id)
        self._streams.get(effect.task_id).end_asked_at = self._clock.monotonic()
        self._keeper.keep_ending(effect.task_id, self._ending(effect.task_id, effect.terminal, log.log_epoch))

    def _ending(self, task_id: str, terminal: Terminal, log_epoch: int) -> Ending:
        state, log = self._owner.state.tasks[task_id].state, self._streams.get(task_id).log
        return Ending(state, terminal, log.packed(), self._now_ms(), log_epoch)

    def _now_ms(self) -> int:
        return round(self._clock.wall().timestamp() * 1000)

    def _forget_saved_session(self, effect: effects.ForgetSavedSession) -> None:
        """A session may end by what ends with a node; to one that has gone, no command goes."""
        if effect.node_id in self._owner.state.fleet.nodes:
            self.node(effect.node_id).forget_saved_session(effect)

    def _leave_node(self, effect: effects.LeaveNode) -> None:
        if commands := self._nodes.pop(effect.node_id, None):
            self._numbered = max(self._numbered, commands.sequence.last)
            self._tasks.spawn(f"close the channel to {effect.node_id}", commands.close())

    def _attach_worker(self, effect: effects.AttachWorker) -> None:
        link = WorkerLink(
            effect.worker_id,
            effect.endpoint,
            CommandSequence(self._authority, partial(self._node_of, effect.worker_id)),
            self._streams,
            self._owner.post,
            self._tasks,
        )
        task = self._tasks.spawn(f"link to {effect.worker_id}", link.run())
        self._links[effect.worker_id] = _RunningLink(link, task.cancel)

    def _node_of(self, worker_id: str) -> str:
        worker = self._owner.state.fleet.workers.get(worker_id)
        return "" if worker is None else worker.node_id

    def _detach_worker(self, effect: effects.DetachWorker) -> None:
        if running := self._links.pop(effect.worker_id, None):
            running.cancel()

    def _start_run(self, effect: effects.StartRun) -> None:
        self._streams.begin_attempt(effect.request.task_id, effect.attempt_id)
        self._links[effect.worker_id].link.start_run(effect)

    def _cancel_run(self, effect: effects.CancelRun) -> None:
        if not effect.keeps_output:
            self._streams.end_attempt(effect.attempt_id)
        self._links[effect.worker_id].link.cancel_run(effect.attempt_id)

    def _count_lost_output(self, effect: effects.CountLostOutput) -> None:
        tokens = self._streams.get(effect.task_id).log.tokens_of_attempt(effect.attempt_id)
        self._streams.end_attempt(effect.attempt_id)
        self._owner.post(LostOutputCounted(effect.attempt_id, tokens))

    def _release_runs(self, effect: effects.ReleaseRuns) -> None:
        self._links[effect.worker_id].link.release_runs(effect.attempt_ids)


@dataclass(frozen=True, slots=True)
class _RunningLink:
    link: WorkerLink
    cancel: Callable[[], object]


def _warn_of_node(effect: effects.WarnOfNode) -> None:
    _log.warning("node_warning", node_id=effect.node_id, what=effect.text)


def _log_loss(effect: effects.AttemptLost) -> None:
    """Whether the task goes on is told to its readers; one that is given up has its own line."""
    _log.info("attempt_lost", task_id=effect.task_id, model=effect.model, why=effect.loss)


def _only_watched(_effect: effects.Effect) -> None:
    """For observers of effects, such as the metrics; there is nothing to do."""
