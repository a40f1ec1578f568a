"""What a worker keeps of runs, for an orchestrator that finds them at its start."""

from datetime import datetime

from llama_orch.v2 import run_pb2
from orchestratord.core.effects import StartRun
from orchestratord.core.facts.found_run import FoundRun, TaskRecord
from orchestratord.store import task_record


def to_task_record(effect: StartRun, admitted_at: datetime) -> bytes:
    accepted_at_ms = round(admitted_at.timestamp() * 1000)
    return task_record.dump(TaskRecord(effect.request, accepted_at_ms, effect.promise))


def to_found_run(run: run_pb2.Run) -> FoundRun:
    """Its record counts only if it is of the task that the attempt is of."""
    if not run.HasField("attempt"):
        return FoundRun(run.attempt_id)
    record = task_record.load(run.task_record, run.spec.SerializeToString())
    if record is not None and record.request.task_id != run.attempt.task_id:
        record = None
    return FoundRun(
        run.attempt_id,
        record,
        run.attempt.number,
        run.attempt.log_epoch,
        run.log_entries,
        run.age_ms / 1000,
        run.output_age_ms / 1000,
    )
