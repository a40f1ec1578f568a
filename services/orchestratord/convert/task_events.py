"""Events of a task's stream. `tokens_to_proto` is on the hot path: it runs once per message of every reader."""

from llama_orch.v2 import log_entry_pb2, task_event_pb2
from llorch.rpc.enum_table import EnumTable
from llorch.rpc.enum_tables import DEVICE_KINDS, FINISH_REASONS
from llorch.rpc.reasons import reason_to_proto
from orchestratord.core.effects import Placement
from orchestratord.core.facts.attempt import Loss
from orchestratord.core.facts.task import Stopped, TaskEnd, TaskError, TaskRequest, Terminal
from orchestratord.core.facts.task_log import Cursor, LogWindow, TaskLog

LOSSES = EnumTable(Loss, task_event_pb2.AttemptLoss)

OutputLog = TaskLog[log_entry_pb2.LogEntry]
OutputWindow = LogWindow[log_entry_pb2.LogEntry]


def started_to_proto(
    request: TaskRequest, cursor: Cursor, queue_position: int, predicted_start_ms: int | None
) -> task_event_pb2.TaskEvent:
    return task_event_pb2.TaskEvent(
        task_id=request.task_id,
        cursor=str(cursor),
        started=task_event_pb2.Started(
            queue_position=queue_position,
            predicted_start_ms=predicted_start_ms,
            model=request.model,
            seed=request.seed,
        ),
    )


def placed_to_proto(placement: Placement) -> task_event_pb2.Placed:
    return task_event_pb2.Placed(
        attempt=placement.attempt,
        worker_id=placement.worker_id,
        node_id=placement.node_id,
        devices=[
            task_event_pb2.PlacedDevice(
                device_id=device.device_id, name=device.name, kind=DEVICE_KINDS.to_proto(device.kind)
            )
            for device in placement.devices
        ],
        engine=placement.engine.engine,
        engine_version=placement.engine.engine_version,
        simulated=placement.engine.simulated,
        cpu=placement.engine.cpu,
        lost=task_event_pb2.ATTEMPT_LOSS_UNSPECIFIED if placement.lost is None else LOSSES.to_proto(placement.lost),
    )


def tokens_to_proto(task_id: str, window: OutputWindow, begin: int, end: int) -> task_event_pb2.TaskEvent:
    """One event for the log entries `begin` to `end` (exclusive), which `run_length` has found to belong together."""
    log, first = window.log, window[begin]
    event = task_event_pb2.TaskEvent(task_id=task_id, cursor=str(log.cursor_at(end)))
    said = event.tokens
    said.index = log.first_index[begin]
    said.choice = first.choice
    kind = first.WhichOneof("content")
    pieces = []
    for seq in range(begin, end):
        entry = window[seq]
        said.token_ids.extend(entry.token_ids)
        if entry.logprobs:
            said.logprobs.extend(entry.logprobs)
        pieces.append(_piece(entry, kind))
    said.count = len(said.token_ids)
    if kind == "tool_call":
        said.tool_call.CopyFrom(first.tool_call)
        said.tool_call.arguments = "".join(pieces)
    elif kind == "reasoning":
        said.reasoning = "".join(pieces)
    else:
        said.text = "".join(pieces)
    return event


MOST_ENTRIES = 512
"""Of one event: what a reader that does not read holds of an output, which may be long."""


def _piece(entry: log_entry_pb2.LogEntry, kind: str | None) -> str:
    if kind == "tool_call":
        return entry.tool_call.arguments
    return entry.reasoning if kind == "reasoning" else entry.text


def run_length(window: OutputWindow, begin: int, limit: int) -> int:
    """The end (exclusive) of the entries from `begin` on, below `limit`, that fit into one event.

    They have the same choice and the same kind of content, and are pieces of the same call if they are of any.
    """
    end = begin + 1
    if end >= limit:
        return end
    first = window[begin]
    kind = first.WhichOneof("content")
    limit = min(limit, begin + MOST_ENTRIES)
    while end < limit:
        entry = window[end]
        if entry.choice != first.choice or entry.WhichOneof("content") != kind:
            break
        if kind == "tool_call" and entry.tool_call.index != first.tool_call.index:
            break
        end += 1
    return end


def terminal_to_proto(task_id: str, log: OutputLog, ending: Terminal) -> task_event_pb2.TaskEvent:
    event = task_event_pb2.TaskEvent(task_id=task_id, cursor=str(log.end))
    if isinstance(ending, TaskError):
        event.error.CopyFrom(error_to_proto(ending))
    elif isinstance(ending, TaskEnd):
        event.end.CopyFrom(_end(ending, log))
    else:
        event.end.CopyFrom(_stopped(ending, log))
    return event


def error_to_proto(failed: TaskError) -> task_event_pb2.Error:
    return task_event_pb2.Error(
        reason=reason_to_proto(failed.reason),
        message=failed.message,
        retryable=failed.retryable,
        retry_after_ms=failed.retry_after_ms,
        field=failed.field,
    )


def _end(ending: TaskEnd, log: OutputLog) -> task_event_pb2.End:
    """A worker counts what it did itself; the log has what earlier attempts did as well."""
    result = ending.result
    choices = [
        task_event_pb2.ChoiceEnd(
            choice=choice.choice,
            finish_reason=FINISH_REASONS.to_proto(choice.finish_reason),
            tokens_out=max(choice.tokens_out, log.tokens_of_choice(choice.choice)),
            stop_string=choice.stop_string,
        )
        for choice in result.choices
    ]
    return task_event_pb2.End(
        choices=choices,
        tokens_in=result.tokens_in,
        tokens_out=sum(choice.tokens_out for choice in choices),
        cached_tokens=result.cached_tokens,
        queue_ms=ending.queue_ms,
        first_token_ms=ending.first_token_ms or None,  # 0 in what is stored: there was none
        decode_time_ms=result.decode_ms,
        receipt=task_event_pb2.DeterminismReceipt.FromString(result.receipt) if result.receipt else None,
    )


def _stopped(ending: Stopped, log: OutputLog) -> task_event_pb2.End:
    """Ended early: every choice that has output, or the first one if none has, counted by the log."""
    choices = [
        task_event_pb2.ChoiceEnd(
            choice=choice,
            finish_reason=FINISH_REASONS.to_proto(ending.finish_reason),
            tokens_out=log.tokens_of_choice(choice),
        )
        for choice in (log.choices() or [0])
    ]
    return task_event_pb2.End(
        choices=choices,
        tokens_in=ending.tokens_in,
        tokens_out=sum(choice.tokens_out for choice in choices),
        cached_tokens=ending.cached_tokens,
        queue_ms=ending.queue_ms,
        first_token_ms=ending.first_token_ms or None,  # 0 in what is stored: there was none
        decode_time_ms=ending.decode_ms,
    )
