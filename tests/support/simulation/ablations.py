"""Safeguards of the brain that can be taken out, each to show that the simulation would notice.

Nothing of this is a switch in the brain: a safeguard is one named function there, and here stands what it is replaced
by. A name that is gone makes the patch fail, and so the test.
"""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from llorch.assignment_mode import Mode
from orchestratord.core import brain, events
from orchestratord.core.effects import PersistChange
from orchestratord.core.facts.accounts import Accounts
from orchestratord.core.facts.admission import AdmissionQueue
from orchestratord.core.facts.fair_queue import AppTurn, FairQueue
from orchestratord.core.facts.fleet import Node, Worker
from orchestratord.core.facts.ledger import DeviceKey, Ledger
from orchestratord.core.facts.records import RecordChange
from orchestratord.core.facts.rules import Rule, Rules
from orchestratord.core.facts.task import Task, TaskState
from orchestratord.core.facts.task_log import TaskLog
from orchestratord.core.facts.timers import TimerKind
from orchestratord.core.lives import (
    model_loading,
    model_unloading,
    nodes,
    task_dispatch,
    worker_life,
)
from orchestratord.core.placement import continuation, eviction, giving_way, isolation, promises
from orchestratord.core.state import BrainState


@dataclass(frozen=True)
class Ablation:
    """`violates` is a part of what the simulation has to say when the safeguard is out. `first_seed` is where worlds
    begin in which that matters, where few are such.
    """

    safeguard: str
    violates: str
    take_out: Callable[[ExitStack], object]
    first_seed: int = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with ExitStack() as stack:
            self.take_out(stack)
            yield


def _replace(owner: object, name: str, by: object) -> Callable[[ExitStack], object]:
    return lambda stack: stack.enter_context(mock.patch.object(owner, name, by))


def _handle(event: type, by: Callable[[BrainState, Any], None]) -> Callable[[ExitStack], object]:
    return lambda stack: stack.enter_context(mock.patch.dict(brain.HANDLERS, {event: by}))


def _report_of_any_session(state: BrainState, event: events.NodeReported) -> None:
    node = state.fleet.nodes[event.node_id]
    nodes.report(state, replace(event, session=node.session))


def _gone(state: BrainState, event: events.WorkerStartFailed) -> None:
    worker_life.start_failed(state, replace(event, command_seq=None))


def _release_now(ledger: Ledger, load_id: str, *_: object) -> None:
    ledger.release(load_id)


def _look_away(state: BrainState) -> None:
    state.look_again = False


def _time(kind: TimerKind) -> Callable[[ExitStack], object]:
    """The timer comes to nothing."""
    return lambda stack: stack.enter_context(mock.patch.dict(brain._TIMERS, {kind: lambda *_: None}))


def _let_virtual_time_stand_still(stack: ExitStack) -> None:
    stack.enter_context(mock.patch.object(Accounts, "charge", _nothing))
    stack.enter_context(mock.patch.object(Accounts, "correct", _nothing))


_IN_ORDER = FairQueue.in_order


def _by_name(queue: FairQueue, _: object, held: Collection[str] = ()) -> Iterator[str]:
    return _IN_ORDER(queue, lambda app: sum(map(ord, app)), held)


def _count_nothing_as_held(stack: ExitStack) -> None:
    stack.enter_context(mock.patch.object(Ledger, "available", Ledger.capacity))
    stack.enter_context(mock.patch.object(Ledger, "room", lambda self, key: (self.capacity(key),) * 2))
    stack.enter_context(mock.patch.object(Ledger, "reserve", Ledger.charge))
    stack.enter_context(mock.patch.object(Ledger, "fits", return_value=True))


_PROMISE = Ledger.promise


def _promise_nothing(ledger: Ledger, load_id: str, claims: Mapping[DeviceKey, int]) -> None:
    _PROMISE(ledger, load_id, dict.fromkeys(claims, 0))


def _let_busy_ones_go(stack: ExitStack) -> None:
    stack.enter_context(mock.patch.object(Worker, "is_idle", property(lambda worker: worker.serves)))
    stack.enter_context(mock.patch.object(model_unloading, "leave", model_unloading.stop))


def _nothing(*_: object) -> None:
    pass


def _let_tasks_end_again(stack: ExitStack) -> None:
    stack.enter_context(mock.patch.object(Task, "is_finished", property(lambda _: False)))
    stack.enter_context(mock.patch.object(Task, "move_to", _move_whatever_was))


def _move_whatever_was(task: Task, state: TaskState) -> None:
    task.state = state


def _start_what_is_not_kept(stack: ExitStack) -> None:
    add = AppTurn.add
    stack.enter_context(mock.patch.object(AppTurn, "add", lambda turns, task_id, turn, **_: add(turns, task_id, turn)))
    stack.enter_context(mock.patch.object(AppTurn, "kept", _nothing))


def _lanes_of_all(queue: AdmissionQueue, model: str, _: object = None) -> list[Hashable]:
    return list({queue[task_id].lane: None for task_id in queue.waiting_for(model)})


def _keep_no_promise(stack: ExitStack) -> None:
    for name in ("is_kept_by", "may_be_kept_at"):
        stack.enter_context(mock.patch.object(promises, name, return_value=True))


_EXCLUDED_BY = Rules.excluded_by


def _excluded_by_all_but_pins(rules: Rules, mode: Mode, node: Node, device_ids: tuple[str, ...]) -> Rule | None:
    return None if mode is Mode.PIN else _EXCLUDED_BY(rules, mode, node, device_ids)


def _follow_at_once(state: BrainState, follow: Callable[[], None], *changes: RecordChange) -> None:
    follow()
    state.emit(PersistChange(changes))


ABLATIONS = (
    Ablation("a change follows when it is kept", "in force is not", _replace(BrainState, "propose", _follow_at_once)),
    Ablation(
        "workers leave for a change when it is kept",
        "has what it has to leave for",
        _replace(BrainState, "propose", _follow_at_once),
    ),
    Ablation(
        "a task loads a model when it is kept",
        "has a task that asks for it",
        _replace(AdmissionQueue, "lanes_of", _lanes_of_all),
    ),
    Ablation("a task starts when it is kept", "which the store has not taken", _start_what_is_not_kept),
    Ablation(
        "a worker gets as many runs as it has slots", "slots", _replace(Worker, "slots_free", property(lambda _: 1))
    ),
    Ablation("memory that is held is not available", "spoken for", _count_nothing_as_held),
    Ablation(
        "reports over an old link are dropped", "over an old link", _handle(events.NodeReported, _report_of_any_session)
    ),
    Ablation("only idle workers are evicted", "while it runs", _let_busy_ones_go),
    Ablation(
        "a worker just loaded stays",
        "for a model that no task waits for",
        _replace(eviction, "residency_over", lambda *_: True),
        first_seed=650,
    ),
    Ablation("what is promised is not there for others", "will not be", _replace(Ledger, "promise", _promise_nothing)),
    Ablation("what is to be kept stays", "is to be kept", _replace(eviction, "is_kept", lambda *_: False)),
    Ablation("pins hold", "against", _replace(Rules, "excluded_by", _excluded_by_all_but_pins)),
    Ablation("no class starves", "goes before those in", _replace(AdmissionQueue, "_is_overdue", lambda *_: False)),
    Ablation("apps share by weight", "its account has", _let_virtual_time_stand_still),
    Ablation(
        "the app that has had least is next",
        "is served at",
        _replace(FairQueue, "in_order", _by_name),
    ),
    Ablation("deadlines end tasks", "after its deadline", _time(TimerKind.DEADLINE)),
    Ablation("memory counts when it is back", "spoken for", _replace(Ledger, "release_when_back", _release_now)),
    Ablation("a task ends once", "second terminal", _let_tasks_end_again),
    Ablation("waiting tasks are looked at again", "never ended", _replace(model_loading, "look_again", _look_away)),
    Ablation("a promise is kept", "goes on with other bytes", _keep_no_promise),
    Ablation(
        "a cancel that got lost is sent again",
        "although it was cancelled",
        _replace(task_dispatch, "cancel_again", lambda *_: None),
    ),
    Ablation(
        "what was lost goes on elsewhere",
        "could go on",
        _replace(continuation, "can_go_on_elsewhere", lambda *_: False),
    ),
    Ablation(
        "what gave way for long enough keeps its slot",
        "though its task did long ago",
        _replace(giving_way, "gets_grant", lambda *_: False),
    ),
    Ablation("suspects run apart", "beside another suspect", _replace(isolation, "may_join", lambda *_: True)),
    Ablation("the first to bring output decides", "is spliced", _replace(TaskLog, "end_attempt", _nothing)),
    Ablation("a start that may have arrived holds its memory", "spoken for", _handle(events.WorkerStartFailed, _gone)),
)
