"""Sessions: where they are warm, and when they end."""

from dataclasses import dataclass

from orchestratord.core.facts.sessions import Session
from orchestratord.core.state import BrainState


@dataclass(frozen=True, slots=True)
class SessionView:
    """`worker_id` is empty, and `warm_tokens` 0, where the worker that was warm is gone."""

    session: Session
    worker_id: str
    warm_tokens: int
    expires_in_s: float


def view(state: BrainState, session: Session, now: float) -> SessionView:
    """`now` is on the brain's clock."""
    is_warm = session.worker_id in state.fleet.workers
    return SessionView(
        session=session,
        worker_id=session.worker_id if is_warm else "",
        warm_tokens=session.warm_tokens if is_warm else 0,
        expires_in_s=state.sessions.expires_at(session) - now,
    )
