"""Apps are created, changed and deleted; and their limits are applied to their tasks."""

from dataclasses import replace
from functools import partial

from llorch.errors import AlreadyExists, FailedPrecondition, Reason, ResourceExhausted, invalid_field
from orchestratord.core.effects import PersistRecord
from orchestratord.core.events import AppCreated, AppDefined, AppDeleted, AppUpdated
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.attempt import Attempt
from orchestratord.core.facts.model import Origin
from orchestratord.core.facts.records import RecordChange
from orchestratord.core.lives import forgetting
from orchestratord.core.state import BrainState


def created(state: BrainState, event: AppCreated) -> App:
    """An app gets its key. One of the settings file has none yet, and keeps its settings from the file."""
    old = state.apps.find(event.app.name)
    if old is not None and old.key_hash:
        raise AlreadyExists(
            Reason.NAME_TAKEN,
            f"an app is called '{old.name}' already; choose another name, or delete it to make a new key "
            f"(`llorch apps rm {old.name}`)",
        )
    _check(state, event.app)
    app = event.app if old is None else replace(old, key_hash=event.app.key_hash, created_at_ms=event.app.created_at_ms)
    return _change(state, old, app)


def defined(state: BrainState, event: AppDefined) -> App:
    """The settings file has an app. It sets everything of it but the key, which was made by a call.

    That is so whether the store has it or not: only the key has to be stored.
    """
    _check(state, event.app)
    old = state.apps.find(event.app.name)
    app = replace(event.app, origin=Origin.FILE)
    if old is not None:
        app = replace(app, key_hash=old.key_hash, created_at_ms=old.created_at_ms)
    if app != old:
        state.emit(PersistRecord(old, app))
        _take_in(state, app)
    return app


def updated(state: BrainState, event: AppUpdated) -> App:
    old = state.apps.get(event.app.name)
    if old.origin is Origin.FILE:
        raise FailedPrecondition(
            Reason.SET_ELSEWHERE, f"app '{old.name}' is defined in the settings file, which wins; change it there"
        )
    _check(state, event.app)
    return _change(state, old, replace(event.app, key_hash=old.key_hash, created_at_ms=old.created_at_ms))


def deleted(state: BrainState, event: AppDeleted) -> None:
    """Its key is invalid from now on; its tasks go on. An app of the settings file loses its key only."""
    old = state.apps.get(event.name)
    if old.origin is not Origin.FILE:
        state.propose(partial(_take_away, state, old.name), RecordChange(old, None))
        return
    if not old.key_hash:
        raise FailedPrecondition(
            Reason.SET_ELSEWHERE, f"app '{old.name}' is defined in the settings file and has no key; remove it there"
        )
    _change(state, old, replace(old, key_hash=""))


def restore_app(state: BrainState, record: App) -> None:
    """Restores an app as made by a call; the settings file, which is read after this, defines its apps again."""
    _take_in(state, replace(record, origin=Origin.CALL))


def refuse_if_used_up(state: BrainState, name: str) -> None:
    """Refuses an app that has used its tokens of the minute, with the time after which to come back."""
    app = state.apps.find(name)
    if app is None or not app.max_tokens_per_minute:
        return
    wait_s = state.apps.usage(name).wait_s(app.max_tokens_per_minute, state.now)
    if wait_s > 0:
        raise ResourceExhausted(
            Reason.QUOTA_EXCEEDED,
            f"app '{name}' has used its {app.max_tokens_per_minute} tokens per minute; wait, or raise its "
            f"max_tokens_per_minute (`llorch apps update {name} --max-tokens-per-minute N`)",
            retry_after_ms=max(1, round(wait_s * 1000)),
            metadata={"app": name},
        )


def attempt_began(state: BrainState, attempt: Attempt) -> None:
    usage = state.apps.usage(attempt.place.app)
    usage.running += 1
    _use_tokens(state, attempt.place.app, attempt.charged)
    _hold_if_at_limit(state, attempt.place.app)


def set_aside(state: BrainState, attempt: Attempt) -> None:
    """Its task may run elsewhere: it takes no place of the app's, of which the limit is tasks and not attempts."""
    if attempt.is_counted:
        attempt.is_counted = False
        state.apps.usage(attempt.place.app).running -= 1
        _hold_if_at_limit(state, attempt.place.app)
        may_ask_for_more(state, attempt.place.app)


def count_again(state: BrainState, attempt: Attempt) -> None:
    """Its task goes on there."""
    if not attempt.is_counted:
        attempt.is_counted = True
        state.apps.usage(attempt.place.app).running += 1
        _hold_if_at_limit(state, attempt.place.app)


def attempt_ended(state: BrainState, attempt: Attempt) -> bool:
    """Returns whether the app was at its limit of tasks at once, so that now another one may start."""
    name = attempt.place.app
    was_held = name in state.queue.held
    set_aside(state, attempt)
    used_s = (state.now - attempt.began_at) * attempt.share
    state.queue.settle(attempt.place, attempt.charged_s, used_s)
    settle(state, attempt)
    if state.apps.find(name) is None and not state.apps.usage(name).running:
        state.apps.forget_usage(name)
    return was_held and name not in state.queue.held


def settle(state: BrainState, attempt: Attempt) -> None:
    """The tokens that it really took replace those that were expected. Once, when they are known."""
    if attempt.served is not None:
        _use_tokens(state, attempt.place.app, attempt.served - attempt.charged)


def may_ask_for_more(state: BrainState, name: str) -> None:
    """Of an app with a limit of tasks at once, one runs no more, or waits no more: its other tasks may have models
    loaded now.
    """
    app = state.apps.find(name)
    if app is not None and app.max_concurrent_tasks and state.queue.waiting_of_app(name):
        state.look_again = True


def _use_tokens(state: BrainState, name: str, tokens: int) -> None:
    if app := state.apps.find(name):
        state.apps.usage(name).use(tokens, app.max_tokens_per_minute, state.now)


def _hold_if_at_limit(state: BrainState, name: str) -> None:
    app = state.apps.find(name)
    limit = app.max_concurrent_tasks if app else 0
    if limit and state.apps.usage(name).running >= limit:
        state.queue.held.add(name)
    else:
        state.queue.held.discard(name)


def _check(state: BrainState, app: App) -> None:
    if app.priority not in state.config.priorities:
        raise invalid_field("priority", f"'{app.priority}' is none of: {', '.join(state.config.priorities)}")
    if app.origin is not Origin.FILE:
        for name in app.models.values():
            state.catalog.get(name)


def _change(state: BrainState, old: App | None, app: App) -> App:
    state.propose(partial(_take_in, state, app), RecordChange(old, app))
    return app


def _take_in(state: BrainState, app: App) -> None:
    state.apps.put(app)
    state.queue.accounts.weights[app.name] = app.weight
    _hold_if_at_limit(state, app.name)
    state.look_again = True


def _take_away(state: BrainState, name: str) -> None:
    state.apps.remove(name)
    forgetting.app_gone(state, name)
    if not state.apps.usage(name).running:
        state.apps.forget_usage(name)
    state.look_again = True
