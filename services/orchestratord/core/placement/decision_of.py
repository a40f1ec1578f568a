"""The record of a decision, which is stored and shown."""

from collections.abc import Mapping

from orchestratord.core.facts.decision import Asked, Candidate, Decision, DecisionRecord, Outcome
from orchestratord.core.state import BrainState

CANDIDATES_KEPT = 8


def record_of(
    state: BrainState,
    decision: Decision,
    outcome: Outcome,
    decision_id: str,
    task_id: str = "",
    why: str = "",
    asked: Asked | None = None,
) -> DecisionRecord:
    candidates: tuple[Candidate, ...] = decision.ranked + decision.details
    removed: Mapping[str, int] = decision.removed
    return DecisionRecord(
        decision_id=decision_id,
        model=decision.model,
        outcome=outcome,
        at_ms=state.ms_now,
        task_id=task_id,
        candidates=candidates if decision.details else candidates[:CANDIDATES_KEPT],
        removed=removed,
        considered=decision.considered,
        pinned=decision.pinned,
        fallback_used=decision.fallback_used,
        why=why,
        asked=asked,
    )
