"""Decisions, with a sentence that explains each."""

from dataclasses import dataclass

from orchestratord.core.facts.decision import Asked, DecisionRecord
from orchestratord.core.placement.sentences import sentence


@dataclass(frozen=True, slots=True)
class DecisionView:
    """`asked` is None where no task was placed, or one that the caller may not see."""

    record: DecisionRecord
    summary: str
    asked: Asked | None


def view(record: DecisionRecord, *, is_dry_run: bool = False, app: str = "") -> DecisionView:
    """As an app sees it; without one, all."""
    is_shown = record.asked is not None and app in ("", record.asked.app)
    return DecisionView(record, sentence(record, is_dry_run=is_dry_run), record.asked if is_shown else None)
