"""What attempts use: every attempt is counted once, in its app's share and quota, its session, and the metrics.

However it ends: answered, cancelled, failed, or lost with its worker.
"""

from orchestratord.core.effects import CountLostOutput, TokensUsed
from orchestratord.core.events import LostOutputCounted
from orchestratord.core.facts.attempt import Attempt
from orchestratord.core.facts.task import RunResult
from orchestratord.core.lives import app_changes, session_life
from orchestratord.core.state import BrainState


def attempt_used(state: BrainState, attempt: Attempt, used: RunResult, *, has_failed: bool = False) -> None:
    """It is known what the attempt took; nothing, of one that its worker refused."""
    attempt.served = used.tokens_in + used.tokens_out
    session_life.run_ended(state, attempt, used, has_failed=has_failed)
    has_begun = any(choice.tokens_out for choice in used.choices)
    note_prompt = state.warmth.evaluated if has_begun and not has_failed else state.warmth.not_evaluated
    note_prompt(attempt.worker_id, attempt.prompt)
    place = attempt.place
    state.emit(TokensUsed(place.model, place.priority, place.app, used.tokens_in, used.tokens_out, used.cached_tokens))


def attempt_lost(state: BrainState, attempt: Attempt) -> None:
    """No worker will tell any more. The log knows the output that came; it is asked before the task ends."""
    if attempt.task_id in state.tasks:
        state.lost_attempts[attempt.attempt_id] = attempt
        state.emit(CountLostOutput(attempt.attempt_id, attempt.task_id))
    else:  # its task was ended early long ago, and is forgotten with its log
        _used_by_lost(state, attempt, tokens_out=0)


def lost_output_counted(state: BrainState, event: LostOutputCounted) -> None:
    attempt = state.lost_attempts.pop(event.attempt_id, None)
    if attempt is None:
        return
    _used_by_lost(state, attempt, event.tokens_out)
    app_changes.settle(state, attempt)  # its slot was free before this was known


def _used_by_lost(state: BrainState, attempt: Attempt, tokens_out: int) -> None:
    ran_ms = round((state.now - attempt.began_at) * 1000) if attempt.started else 0
    used = RunResult((), attempt.tokens_in, tokens_out, attempt.cached_tokens, decode_ms=ran_ms)
    attempt_used(state, attempt, used, has_failed=True)
