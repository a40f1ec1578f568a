"""Runs: what they put out, how they ended, and which there are. `fill_delta` is on the hot path."""

from llama_orch.v2 import cancel_pb2, run_pb2, task_event_pb2, worker_service_pb2
from llorch.errors import invalid_field
from llorch.identifiers import check_id
from llorch.rpc.enum_table import EnumTable
from llorch.rpc.enum_tables import FINISH_REASONS
from llorch.rpc.log_digest import digest_after
from llorch.rpc.reasons import reason_to_proto
from worker_orcd.convert.engine import to_fingerprint
from worker_orcd.convert.log_entries import fill_rare_entry
from worker_orcd.convert.run_spec import without_time
from worker_orcd.log_entry import ChoiceEnd, Receipt, RunEnd, RunFailure
from worker_orcd.run_table import CancelOutcome, Run
from worker_orcd.task_attempt import Keepsake, TaskAttempt

_OUTCOMES = EnumTable(CancelOutcome, cancel_pb2.CancelOutcome)


def add_delta(frame: run_pb2.StepFrame, run: Run, from_seq: int, *, with_start: bool) -> None:
    """Appends to a frame what a run has from `from_seq` on."""
    fill_delta(frame.deltas.add(attempt_id=run.attempt_id), run, from_seq, with_start=with_start)


def fill_delta(delta: run_pb2.RunDelta, run: Run, from_seq: int, *, with_start: bool) -> None:
    if with_start and run.started_after_ms is not None:
        delta.started_after_ms = run.started_after_ms
        delta.tokens_in, delta.cached_tokens = run.tokens_in, run.cached_tokens
    add = delta.entries.add
    for seq in range(from_seq, len(run.log)):
        entry = run.log[seq]
        if entry.reasoning is None and entry.tool_call is None and not entry.sampler_state and not entry.logprobs:
            add(seq=seq, choice=entry.choice, token_ids=entry.token_ids, text=entry.text)
        else:
            fill_rare_entry(add(seq=seq, choice=entry.choice, token_ids=entry.token_ids), entry)
    if run.end is not None:
        delta.end.CopyFrom(_run_end(run.end))


def to_listed_run(run: Run, now: float) -> run_pb2.Run:
    if run.end is not None:
        state = run_pb2.RUN_STATE_ENDED
    elif run.started_after_ms is not None:
        state = run_pb2.RUN_STATE_RUNNING
    else:
        state = run_pb2.RUN_STATE_WAITING
    listed = run_pb2.Run(
        attempt_id=run.attempt_id,
        state=state,
        log_entries=len(run.log),
        task_record=run.kept.task_record,
        age_ms=_ms(now - run.admitted_at),
        output_age_ms=None if run.output_at is None else _ms(now - run.output_at),
    )
    if (attempt := run.kept.attempt) is not None:
        listed.attempt.task_id, listed.attempt.number = attempt.task_id, attempt.number
        listed.attempt.log_epoch = attempt.log_epoch
        listed.attempt.prefix_entries, listed.attempt.prefix_digest = attempt.prefix_entries, attempt.prefix_digest
    if run.kept.spec:
        listed.spec.ParseFromString(run.kept.spec)
    return listed


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def to_keepsake(request: worker_service_pb2.StartRunRequest) -> Keepsake:
    """Raises InvalidArgument where the attempt does not begin where its prefix ends."""
    attempt = _to_attempt(request) if request.HasField("attempt") else None
    return Keepsake(request.task_record, attempt, without_time(request.spec))


def _to_attempt(request: worker_service_pb2.StartRunRequest) -> TaskAttempt:
    told = request.attempt
    check_id(told.task_id, "attempt.task_id")
    if not told.number:
        raise invalid_field("attempt.number", "counts from 1")
    if told.prefix_entries != len(request.prefix):
        raise invalid_field(
            "attempt.prefix_entries", f"is {told.prefix_entries}, and the prefix has {len(request.prefix)} entries"
        )
    if told.prefix_digest != digest_after(request.prefix):
        raise invalid_field("attempt.prefix_digest", "is not that of the prefix, which is not the one that was meant")
    return TaskAttempt(told.task_id, told.number, told.log_epoch, told.prefix_entries, told.prefix_digest)


def to_cancel_outcome(outcome: CancelOutcome) -> cancel_pb2.CancelOutcome.ValueType:
    return _OUTCOMES.to_proto(outcome)


def _run_end(end: RunEnd) -> run_pb2.RunEnd:
    return run_pb2.RunEnd(
        choices=[_choice_end(choice) for choice in end.choices],
        tokens_in=end.tokens_in,
        tokens_out=end.tokens_out,
        cached_tokens=end.cached_tokens,
        prefill_ms=end.prefill_ms,
        decode_ms=end.decode_ms,
        embeddings=[run_pb2.Embedding(values=vector) for vector in end.embeddings],
        scores=end.scores,
        receipt=_receipt(end.receipt) if end.receipt is not None else None,
        error=_error(end.failure) if end.failure is not None else None,
    )


def _receipt(receipt: Receipt) -> task_event_pb2.DeterminismReceipt:
    return task_event_pb2.DeterminismReceipt(
        fingerprint=to_fingerprint(receipt.fingerprint), seed=receipt.seed, token_digest=receipt.token_digest
    )


def _choice_end(choice: ChoiceEnd) -> task_event_pb2.ChoiceEnd:
    return task_event_pb2.ChoiceEnd(
        choice=choice.choice,
        finish_reason=FINISH_REASONS.to_proto(choice.finish_reason),
        tokens_out=choice.tokens_out,
        stop_string=choice.stop_string,
    )


def _error(failure: RunFailure) -> task_event_pb2.Error:
    return task_event_pb2.Error(
        reason=reason_to_proto(failure.reason),
        message=failure.message,
        retryable=failure.reason.is_retryable,
        field=failure.field,
    )
