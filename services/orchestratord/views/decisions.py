"""Decisions, with a sentence that explains each."""

from dataclasses import dataclass

from orchestratord.core.facts.decision import DecisionRecord
from orchestratord.core.placement.sentences import sentence


@dataclass(frozen=True, slots=True)
class DecisionView:
    record: DecisionRecord
    summary: str


def view(record: DecisionRecord, *, is_dry_run: bool = False) -> DecisionView:
    return DecisionView(record, sentence(record, is_dry_run=is_dry_run))
