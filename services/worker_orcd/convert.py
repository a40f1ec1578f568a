"""The only place where the worker's protobuf messages meet its dataclasses."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from google.protobuf.message import Message as ProtoMessage

from llama_orch.v2 import (
    cancel_pb2,
    engine_pb2,
    error_reason_pb2,
    log_entry_pb2,
    run_pb2,
    task_event_pb2,
    task_pb2,
)
from llorch.errors import InvalidArgument, Reason, invalid_field
from worker_orcd.chat import tools as chat_tools
from worker_orcd.engine_info import EngineInfo, Fingerprint, ResumeSupport
from worker_orcd.log_entry import (
    ChoiceEnd,
    FinishReason,
    LogEntry,
    PositionLogprobs,
    Receipt,
    RunEnd,
    RunFailure,
    TokenLogprob,
    ToolCallDelta,
)
from worker_orcd.run_spec import (
    ConstraintKind,
    Demand,
    Message,
    OutputConstraint,
    Role,
    RunSpec,
    Sampling,
    Tool,
    ToolCall,
    ToolChoice,
)
from worker_orcd.run_table import CancelOutcome, Run

PROTOCOL_MIN = 1
PROTOCOL_MAX = 1

_OFF: Mapping[str, float] = MappingProxyType(
    {
        "typical_p": 1.0,
        "repeat_penalty": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "dry_multiplier": 0.0,
        "xtc_probability": 0.0,
        "mirostat": 0,
    }
)
"""Values that switch a sampling option off: saying so asks nothing of an engine."""

_OUTCOMES = {
    CancelOutcome.CANCELLED: cancel_pb2.CANCEL_OUTCOME_CANCELLED,
    CancelOutcome.FINISHED: cancel_pb2.CANCEL_OUTCOME_ALREADY_FINISHED,
    CancelOutcome.UNKNOWN: cancel_pb2.CANCEL_OUTCOME_UNKNOWN,
}


def run_spec(proto: run_pb2.RunSpec) -> RunSpec:
    """What a run is asked to do. Refuses what no engine of this release does at all."""
    kind = proto.WhichOneof("work")
    if kind is None:
        raise invalid_field("spec.work", "one of generate, embed and rerank has to be set")
    if kind == "embed":
        return _embed_spec(proto)
    if kind != "generate":
        raise InvalidArgument(
            Reason.UNSUPPORTED_OPTION,
            f"{kind}: this model's engine has no support for it",
            metadata={"field": kind},
        )
    work = proto.generate
    if work.HasField("chat") and not work.chat.messages:
        raise invalid_field("generate.chat.messages", "at least one message is needed")
    return RunSpec(
        messages=tuple(_messages(work.chat)),
        prompt=work.prompt,
        tools=tuple(_tools(work.chat)),
        tool_choice=work.chat.tool_choice or ToolChoice.AUTO,
        template_values=chat_tools.json_object("generate.chat.template_values", work.chat.template_values),
        seed=work.sampling.seed,
        max_tokens=work.max_tokens if work.HasField("max_tokens") else None,
        sampling=_sampling(work.sampling),
        stop=tuple(work.stop),
        stop_token_ids=frozenset(work.stop_token_ids),
        ignore_eos=work.ignore_eos,
        choices=work.n if work.HasField("n") else 1,
        constraint=_forced_call(work) or _constraint(work.output_constraint),
        top_logprobs=work.top_logprobs if work.HasField("top_logprobs") else None,
        deterministic=proto.deterministic,
        remaining_ms=proto.remaining_ms if proto.HasField("remaining_ms") else None,
        demands=tuple(_demands(proto)),
    )


def _embed_spec(proto: run_pb2.RunSpec) -> RunSpec:
    if not proto.embed.inputs:
        raise invalid_field("embed.inputs", "at least one text is needed")
    return RunSpec(
        inputs=tuple(proto.embed.inputs),
        remaining_ms=proto.remaining_ms if proto.HasField("remaining_ms") else None,
        demands=(Demand("embed", "embeddings"), *_demands(proto)),
    )


def spec_fingerprint(spec: run_pb2.RunSpec, prefix: Sequence[log_entry_pb2.LogEntry]) -> bytes:
    """Equal for equal content. The remaining time shrinks while a start is tried again: it does not count."""
    timeless = run_pb2.RunSpec()
    timeless.CopyFrom(spec)
    timeless.ClearField("remaining_ms")
    digest = hashlib.sha256()
    parts: list[ProtoMessage] = [timeless, *prefix]
    for part in parts:
        content = part.SerializeToString(deterministic=True)
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.digest()


def log_prefix(entries: Sequence[log_entry_pb2.LogEntry]) -> tuple[LogEntry, ...]:
    """The log of earlier attempts; refuses one with a gap."""
    for at, entry in enumerate(entries):
        if entry.seq != at:
            raise invalid_field("prefix", f"entry {at} has seq {entry.seq}; a prefix begins at 0 and has no gaps")
    return tuple(_log_entry(entry) for entry in entries)


def add_delta(frame: run_pb2.StepFrame, run: Run, from_seq: int, *, with_start: bool) -> None:
    """Appends to a frame what a run has from `from_seq` on."""
    fill_delta(frame.deltas.add(attempt_id=run.attempt_id), run, from_seq, with_start=with_start)


def fill_delta(delta: run_pb2.RunDelta, run: Run, from_seq: int, *, with_start: bool) -> None:
    if with_start and run.started_after_ms is not None:
        delta.started_after_ms = run.started_after_ms
    add = delta.entries.add
    for seq in range(from_seq, len(run.log)):
        entry = run.log[seq]
        if entry.reasoning is None and entry.tool_call is None and not entry.sampler_state and not entry.logprobs:
            add(seq=seq, choice=entry.choice, token_ids=entry.token_ids, text=entry.text)
        else:
            _fill_rare_entry(add(seq=seq, choice=entry.choice, token_ids=entry.token_ids), entry)
    if run.end is not None:
        delta.end.CopyFrom(_run_end(run.end))


def listed_run(run: Run) -> run_pb2.Run:
    if run.end is not None:
        state = run_pb2.RUN_STATE_ENDED
    elif run.started_after_ms is not None:
        state = run_pb2.RUN_STATE_RUNNING
    else:
        state = run_pb2.RUN_STATE_WAITING
    return run_pb2.Run(attempt_id=run.attempt_id, state=state, log_entries=len(run.log), task_record=run.task_record)


def cancel_outcome(outcome: CancelOutcome) -> cancel_pb2.CancelOutcome.ValueType:
    return _OUTCOMES[outcome]


def engine_info(info: EngineInfo) -> engine_pb2.EngineInfo:
    can = info.capabilities
    return engine_pb2.EngineInfo(
        engine=info.engine,
        engine_version=info.engine_version,
        model=info.model,
        context_trained=info.context_trained,
        context_per_slot=info.context_per_slot,
        slots=info.slots,
        max_admitted=info.max_admitted,
        vocabulary_size=info.vocabulary_size,
        capabilities=engine_pb2.EngineCapabilities(
            resume=_resume_support(can.resume),
            deterministic=can.deterministic,
            logprobs=can.logprobs,
            grammar=can.grammar,
            json_schema=can.json_schema,
            tools=can.tools,
            chat=can.chat,
            embeddings=can.embeddings,
            multiple_choices=can.multiple_choices,
            sampling_options=sorted(can.sampling_options),
        ),
        fingerprint=_fingerprint(info.fingerprint),
        simulated=info.simulated,
        cpu=info.cpu,
        load_ms=info.load_ms,
        memory_mib=info.memory_mib,
        protocol_min=PROTOCOL_MIN,
        protocol_max=PROTOCOL_MAX,
    )


def error_reason(reason: Reason) -> error_reason_pb2.ErrorReason.ValueType:
    return error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}")


def _messages(chat: task_pb2.ChatInput) -> Iterator[Message]:
    for number, message in enumerate(chat.messages):
        path = f"generate.chat.messages[{number}]"
        if message.role not in list(Role):
            raise invalid_field(f"{path}.role", f"has to be one of {', '.join(Role)}")
        yield Message(
            role=Role(message.role),
            content="".join(_texts(message.content, path)),
            name=message.name,
            tool_calls=tuple(_tool_calls(message.tool_calls, path)),
            tool_call_id=message.tool_call_id,
        )


def _texts(parts: Sequence[task_pb2.ContentPart], path: str) -> Iterator[str]:
    for number, part in enumerate(parts):
        kind = part.WhichOneof("part")
        if kind != "text":
            field = f"{path}.content[{number}]"
            raise InvalidArgument(
                Reason.UNSUPPORTED_CONTENT,
                f"{field}: no engine takes {kind or 'an empty part'} yet; send text",
                metadata={"field": field},
            )
        yield part.text


def _tool_calls(calls: Sequence[task_pb2.ToolCall], path: str) -> Iterator[ToolCall]:
    for number, call in enumerate(calls):
        yield chat_tools.tool_call(f"{path}.tool_calls[{number}]", call.call_id, call.name, call.arguments)


def _forced_call(work: task_pb2.GenerateWork) -> OutputConstraint | None:
    schema = chat_tools.forced_call_schema(tuple(_tools(work.chat)), work.chat.tool_choice or ToolChoice.AUTO)
    if schema is None:
        return None
    if work.HasField("output_constraint"):
        raise invalid_field("generate.output_constraint", "can't be set where a tool has to be called")
    return OutputConstraint(ConstraintKind.JSON_SCHEMA, schema)


def _tools(chat: task_pb2.ChatInput) -> Iterator[Tool]:
    for number, tool in enumerate(chat.tools):
        path = f"generate.chat.tools[{number}]"
        yield chat_tools.tool(path, tool.name, tool.description, tool.parameters)


def _sampling(proto: task_pb2.Sampling) -> Sampling:
    given = {field.name: value for field, value in proto.ListFields() if field.name not in ("logit_bias", "seed")}
    return Sampling(**given, logit_bias=dict(proto.logit_bias))


def _constraint(proto: task_pb2.OutputConstraint) -> OutputConstraint | None:
    kind = proto.WhichOneof("constraint")
    return None if kind is None else OutputConstraint(ConstraintKind(kind), getattr(proto, kind))


def _demands(proto: run_pb2.RunSpec) -> Iterator[Demand]:
    """Everything in a spec that an engine may lack."""
    work = proto.generate
    if proto.deterministic:
        yield Demand("deterministic", "deterministic")
    if proto.adapters:
        yield Demand("adapters", "adapters")
    for field, value in work.sampling.ListFields():
        if field.name not in _OFF or value != _OFF[field.name]:
            yield Demand(f"generate.sampling.{field.name}", field.name)
    constraint = work.output_constraint.WhichOneof("constraint")
    if constraint is not None:
        yield Demand(f"generate.output_constraint.{constraint}", constraint)
    if work.HasField("top_logprobs"):
        yield Demand("generate.top_logprobs", "logprobs")
    if work.n > 1:
        yield Demand("generate.n", "multiple_choices")
    if work.HasField("chat"):
        yield Demand("generate.chat", "chat")
        yield from _tool_demands(work.chat)


def _tool_demands(chat: task_pb2.ChatInput) -> Iterator[Demand]:
    choice = chat.tool_choice or ToolChoice.AUTO
    if chat.tools and choice != ToolChoice.NONE:
        yield Demand("generate.chat.tools", "tools")
    if choice not in (ToolChoice.AUTO, ToolChoice.NONE):
        yield Demand("generate.chat.tool_choice", "tools")
        yield Demand("generate.chat.tool_choice", "json_schema")
    for number, message in enumerate(chat.messages):
        if message.tool_calls or message.tool_call_id or message.role == Role.TOOL:
            yield Demand(f"generate.chat.messages[{number}]", "tools")


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


def _fill_rare_entry(proto: log_entry_pb2.LogEntry, entry: LogEntry) -> None:
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


def _run_end(end: RunEnd) -> run_pb2.RunEnd:
    return run_pb2.RunEnd(
        choices=[_choice_end(choice) for choice in end.choices],
        tokens_in=end.tokens_in,
        tokens_out=end.tokens_out,
        cached_tokens=end.cached_tokens,
        prefill_ms=end.prefill_ms,
        decode_ms=end.decode_ms,
        embeddings=[run_pb2.Embedding(values=vector) for vector in end.embeddings],
        receipt=_receipt(end.receipt) if end.receipt is not None else None,
        error=_error(end.failure) if end.failure is not None else None,
    )


def _receipt(receipt: Receipt) -> task_event_pb2.DeterminismReceipt:
    return task_event_pb2.DeterminismReceipt(
        fingerprint=_fingerprint(receipt.fingerprint), seed=receipt.seed, token_digest=receipt.token_digest
    )


def _fingerprint(fingerprint: Fingerprint) -> engine_pb2.EngineFingerprint:
    return engine_pb2.EngineFingerprint(
        engine_version=fingerprint.engine_version,
        build=fingerprint.build,
        device_kind=fingerprint.device_kind,
        device=fingerprint.device,
        model_digest=fingerprint.model_digest,
        sampler_profile=fingerprint.sampler_profile,
        prefill_chunk=fingerprint.prefill_chunk,
        threads=fingerprint.threads,
        flash_attention=fingerprint.flash_attention,
        cache_type_k=fingerprint.cache_type_k,
        cache_type_v=fingerprint.cache_type_v,
        context_per_slot=fingerprint.context_per_slot,
    )


def _choice_end(choice: ChoiceEnd) -> task_event_pb2.ChoiceEnd:
    return task_event_pb2.ChoiceEnd(
        choice=choice.choice,
        finish_reason=_finish_reason(choice.finish_reason),
        tokens_out=choice.tokens_out,
        stop_string=choice.stop_string,
    )


def _error(failure: RunFailure) -> task_event_pb2.Error:
    return task_event_pb2.Error(
        reason=error_reason(failure.reason), message=failure.message, retryable=failure.retryable
    )


def _finish_reason(reason: FinishReason) -> task_event_pb2.FinishReason.ValueType:
    return task_event_pb2.FinishReason.Value(f"FINISH_REASON_{reason}")


def _resume_support(support: ResumeSupport) -> engine_pb2.ResumeSupport.ValueType:
    return engine_pb2.ResumeSupport.Value(f"RESUME_SUPPORT_{support}")
