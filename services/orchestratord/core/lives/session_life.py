"""Sessions begin with a task that names them, are used, and end when no task uses them any more."""

from dataclasses import replace

from orchestratord.core.effects import ForgetSavedSession, PersistRecord
from orchestratord.core.events import SessionDeleted
from orchestratord.core.facts.attempt import Attempt
from orchestratord.core.facts.sessions import Session
from orchestratord.core.facts.task import RunResult, TaskRequest
from orchestratord.core.facts.timers import TimerKind
from orchestratord.core.state import BrainState


def refuse_if_spent(state: BrainState, request: TaskRequest) -> None:
    """A session whose budget is spent takes no more tasks, unless this one brings a larger budget."""
    if request.session_id:
        _with_budget(_session_of(state, request), request).refuse_if_spent()


def turn_begins(state: BrainState, request: TaskRequest) -> None:
    """A task of the session was admitted."""
    if not request.session_id:
        return
    old = state.sessions.find(request.app, request.session_id)
    session = _with_budget(_session_of(state, request), request)
    state.sessions.task_came(request.app, request.session_id)
    _put(state, old, replace(session, model=request.model, turns=session.turns + 1))


def turn_goes_on(state: BrainState, request: TaskRequest) -> None:
    """A task of the session was admitted by an earlier orchestrator process, and counted then."""
    if request.session_id:
        state.sessions.task_came(request.app, request.session_id)


def run_ended(state: BrainState, attempt: Attempt, result: RunResult, *, has_failed: bool) -> None:
    """The usage of a run counts, however it ended; and its worker may have the conversation cached now."""
    session = state.sessions.find(attempt.place.app, attempt.session_id)
    if session is None or not (result.tokens_in or result.tokens_out):
        return
    used = replace(
        session,
        tokens=session.tokens + result.tokens_in + result.tokens_out,
        busy_ms=session.busy_ms + result.prefill_ms + result.decode_ms,
    )
    if result.choices and not has_failed:
        is_there = attempt.worker_id in state.fleet.workers
        warm_tokens = _left_in_cache(result) if is_there else 0
        used = replace(used, worker_id=attempt.worker_id if is_there else "", warm_tokens=warm_tokens)
    elif has_failed and attempt.worker_id == session.worker_id:
        used = replace(used, worker_id="", warm_tokens=0)
    _put(state, session, used)


def _left_in_cache(result: RunResult) -> int:
    """The prompt and one answer, of the longest choice: a conversation goes on from one. Of a run that was ended before
    its first token, what it has found there.
    """
    answer = max(choice.tokens_out for choice in result.choices)
    return result.tokens_in + answer if answer else result.cached_tokens


def turn_ended(state: BrainState, request: TaskRequest) -> None:
    """A task of the session has ended, in any state."""
    if not request.session_id:
        return
    state.sessions.task_went(request.app, request.session_id)
    if session := state.sessions.find(request.app, request.session_id):
        _put(state, session, session)


def time_over(state: BrainState, record_key: str) -> None:
    """The session ends, unless it was used since."""
    session = state.sessions.by_record_key(record_key)
    if session is None or state.sessions.is_busy(session) or state.now < state.sessions.expires_at(session):
        return
    _remove(state, session)


def deleted(state: BrainState, event: SessionDeleted) -> None:
    """Ended by a caller. Its tasks go on."""
    _remove(state, state.sessions.get(event.app, event.session_id))


def restore_session(state: BrainState, record: Session) -> None:
    """A restored session has its whole time again, since no client could use it meanwhile."""
    _keep(state, record)


def _session_of(state: BrainState, request: TaskRequest) -> Session:
    known = state.sessions.find(request.app, request.session_id)
    return known or Session(request.app, request.session_id)


def _with_budget(session: Session, request: TaskRequest) -> Session:
    return session if request.session_budget is None else replace(session, budget=request.session_budget)


def _put(state: BrainState, old: Session | None, session: Session) -> None:
    _keep(state, session)
    if session != old:
        state.emit(PersistRecord(old, session))


def _keep(state: BrainState, session: Session) -> None:
    ends_at = state.now + state.config.session_ttl_s
    state.sessions.put(session, ends_at)
    if not state.sessions.is_busy(session):
        state.timers.at(ends_at, TimerKind.SESSION, session.record_key)
    if (oldest := state.sessions.one_too_many()) is not None:
        _remove(state, oldest)


def _remove(state: BrainState, session: Session) -> None:
    state.sessions.remove(session.app, session.session_id)
    state.timers.cancel(session.record_key, TimerKind.SESSION)
    state.emit(PersistRecord(session, None))
    _forget_what_is_saved(state, session)


def _forget_what_is_saved(state: BrainState, session: Session) -> None:
    """Wherever something is saved: which sessions that are, nodes do not tell.

    Its worker may be ending just now, and save it after the node has carried this out, or the node may be away. Then it
    stays until its time is over (`SessionToSave.keep_s`), which the node itself sees to.
    """
    for node in state.fleet.nodes.values():
        if node.saved_sessions.sequences:
            state.emit(ForgetSavedSession(node.node_id, session.app, session.session_id))
