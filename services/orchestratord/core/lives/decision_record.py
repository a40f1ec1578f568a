"""Decisions are kept: the last ones in memory, more of them in the store."""

from orchestratord.core.effects import PersistRecord
from orchestratord.core.facts.decision import Asked, Decision, DecisionRecord, Outcome
from orchestratord.core.placement.decision_of import record_of
from orchestratord.core.state import BrainState


def note(
    state: BrainState,
    decision: Decision,
    outcome: Outcome,
    task_id: str = "",
    why: str = "",
    asked: Asked | None = None,
) -> None:
    record = record_of(state, decision, outcome, state.new_id("decision"), task_id, why, asked)
    state.decisions.add(record)
    state.emit(PersistRecord(None, record))


def restore(state: BrainState, record: DecisionRecord) -> None:
    state.decisions.add(record)
