"""Vectors and scores of texts: what a finished task answers."""

from llama_orch.v2 import run_pb2, task_event_pb2
from llama_orch.v2 import task_service_pb2 as pb2
from llorch.errors import Aborted, DeadlineExceeded, Reason
from llorch.rpc.reasons import reason_of_proto
from llorch.task_failure import failure_of_task


def to_embed_response(terminal: task_event_pb2.TaskEvent, reading: run_pb2.RunEnd) -> pb2.EmbedResponse:
    """The answer of a task that ended so. Raises the error that the task failed with."""
    _refuse_unfinished(terminal)
    return pb2.EmbedResponse(task_id=terminal.task_id, embeddings=reading.embeddings, tokens_in=terminal.end.tokens_in)


def to_rerank_response(terminal: task_event_pb2.TaskEvent, reading: run_pb2.RunEnd, top_n: int) -> pb2.RerankResponse:
    """The best `top_n`; all for 0. Raises as `to_embed_response`."""
    _refuse_unfinished(terminal)
    best = sorted(enumerate(reading.scores), key=lambda document: -document[1])[: top_n or None]
    return pb2.RerankResponse(
        task_id=terminal.task_id,
        documents=[pb2.RankedDocument(index=index, score=score) for index, score in best],
        tokens_in=terminal.end.tokens_in,
    )


def _refuse_unfinished(terminal: task_event_pb2.TaskEvent) -> None:
    task_id = terminal.task_id
    if terminal.HasField("error"):
        error = terminal.error
        raise failure_of_task(
            reason_of_proto(error.reason),
            error.message,
            retry_after_ms=error.retry_after_ms if error.HasField("retry_after_ms") else None,
            field=error.field,
        )
    reasons = [choice.finish_reason for choice in terminal.end.choices]
    if task_event_pb2.FINISH_REASON_DEADLINE in reasons:
        raise DeadlineExceeded(Reason.DEADLINE_PASSED, f"the deadline of task {task_id} passed while it ran")
    if task_event_pb2.FINISH_REASON_CANCELLED in reasons:
        raise Aborted(Reason.CANCELLED, f"task {task_id} was cancelled")
