"""Decisions are kept: the last ones at hand, more of them in the store."""

from collections.abc import Mapping

from orchestratord.core.effects import PersistRecord
from orchestratord.core.placement.decision import Candidate, Decision, DecisionRecord, Outcome
from orchestratord.core.state import BrainState

CANDIDATES_KEPT = 8


def note(state: BrainState, decision: Decision, outcome: Outcome, task_id: str = "") -> None:
    record = record_of(state, decision, outcome, state.new_id("decision"), task_id)
    state.decisions.add(record)
    state.emit(PersistRecord(None, record))


def record_of(
    state: BrainState, decision: Decision, outcome: Outcome, decision_id: str, task_id: str = ""
) -> DecisionRecord:
    candidates: tuple[Candidate, ...] = decision.ranked + decision.details
    removed: Mapping[str, int] = decision.removed
    return DecisionRecord(
        decision_id=decision_id,
        model=decision.model,
        outcome=outcome,
        at_ms=round(state.clock_began_ms + state.now * 1000),
        task_id=task_id,
        candidates=candidates if decision.details else candidates[:CANDIDATES_KEPT],
        removed=removed,
        considered=decision.considered,
        pinned=decision.pinned,
        fallback_used=decision.fallback_used,
    )


def restore(state: BrainState, kept: DecisionRecord | None, lost: DecisionRecord | None) -> None:  # noqa: ARG001  as all of its kind
    """One that could not be written is no reason to forget it here."""
    if kept is not None:
        state.decisions.add(kept)
