"""Entries of a run's log."""

from collections.abc import Sequence

from llama_orch.v2 import log_entry_pb2
from llorch.errors import invalid_field
from worker_orcd.log_entry import LogEntry, PositionLogprobs, TokenLogprob, ToolCallDelta


def to_log_prefix(entries: Sequence[log_entry_pb2.LogEntry]) -> tuple[LogEntry, ...]:
    """The log of earlier attempts. Raises InvalidArgument for one with a gap."""
    for at, entry in enumerate(entries):
        if entry.seq != at:
            raise invalid_field("prefix", f"entry {at} has seq {entry.seq}; a prefix begins at 0 and has no gaps")
    return tuple(_log_entry(entry) for entry in entries)


def _log_entry(proto: log_entry_pb2.LogEntry) -> LogEntry:
    kind = proto.WhichOneof("content")
    call = proto.tool_call
    return LogEntry(
        choice=proto.choice,
        token_ids=tuple(proto.token_ids),
        text=proto.text,
        reasoning=proto.reasoning if kind == "reasoning" else None,
        tool_call=ToolCallDelta(call.index, call.call_id, call.name, call.arguments) if kind == "tool_call" else None,
        sampler_state=proto.sampler_state,
        logprobs=tuple(
            PositionLogprobs(_token_logprob(position.chosen), tuple(_token_logprob(token) for token in position.top))
            for position in proto.logprobs
        ),
    )


def _token_logprob(proto: log_entry_pb2.TokenLogprob) -> TokenLogprob:
    return TokenLogprob(proto.token_id, proto.logprob, proto.raw)


def fill_rare_entry(proto: log_entry_pb2.LogEntry, entry: LogEntry) -> None:
    proto.sampler_state = entry.sampler_state
    for position in entry.logprobs:
        told = proto.logprobs.add()
        _fill_logprob(told.chosen, position.chosen)
        for token in position.top:
            _fill_logprob(told.top.add(), token)
    if entry.reasoning is not None:
        proto.reasoning = entry.reasoning
    elif entry.tool_call is not None:
        call = entry.tool_call
        proto.tool_call.index = call.index
        proto.tool_call.call_id = call.call_id
        proto.tool_call.name = call.name
        proto.tool_call.arguments = call.arguments
    else:
        proto.text = entry.text


def _fill_logprob(proto: log_entry_pb2.TokenLogprob, token: TokenLogprob) -> None:
    proto.token_id = token.token_id
    proto.text = token.raw.decode(errors="replace")
    proto.logprob = token.logprob
    proto.raw = token.raw
