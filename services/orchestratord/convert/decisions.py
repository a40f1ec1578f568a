"""Decisions: where something goes, and why."""

from google.protobuf.timestamp_pb2 import Timestamp

from llama_orch.v2 import decision_pb2
from orchestratord.core.facts.decision import Asked, Candidate, Outcome
from orchestratord.views.decisions import DecisionView


def to_proto(view: DecisionView) -> decision_pb2.DecisionLog:
    record = view.record
    time = Timestamp()
    time.FromMilliseconds(record.at_ms)
    return decision_pb2.DecisionLog(
        decision_id=record.decision_id,
        task_id=record.task_id,
        model=record.model,
        time=time,
        candidates=[_candidate(candidate) for candidate in record.candidates],
        chosen=0 if record.outcome is Outcome.CHOSEN else None,
        pinned=record.pinned,
        fallback_used=record.fallback_used,
        summary=view.summary,
        considered=record.considered,
        removed=record.removed,
        placed_task=None if view.asked is None else _placed(view.asked),
    )


def _placed(asked: Asked) -> decision_pb2.PlacedTask:
    create_time = Timestamp()
    create_time.FromMilliseconds(asked.came_at_ms)
    return decision_pb2.PlacedTask(
        app=asked.app,
        priority=asked.priority,
        create_time=create_time,
        prompt_tokens=asked.prompt_tokens,
        output_tokens=asked.output_tokens,
    )


def _candidate(candidate: Candidate) -> decision_pb2.PlacementCandidate:
    return decision_pb2.PlacementCandidate(
        node_id=candidate.node_id,
        device_ids=candidate.device_ids,
        worker_id=candidate.worker_id,
        filtered_by=candidate.filtered_by,
        filter_detail=candidate.filter_detail,
        score=[decision_pb2.ScoreTerm(name=term.name, ms=term.ms, guess=term.is_guess) for term in candidate.terms],
        evicts_worker_ids=candidate.evicts,
        evicts_mib=candidate.evicts_mib,
        claims_mib=candidate.claims_mib,
        tensor_split=candidate.tensor_split,
        where=candidate.where,
    )
