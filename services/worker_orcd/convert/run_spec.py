"""What a run is asked to do."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from llama_orch.v2 import log_entry_pb2, run_pb2, task_pb2
from llorch.errors import InvalidArgument, Reason, invalid_field
from llorch.options.generation import AnswerOptions
from llorch.options.sampling import SAMPLING, Sampling
from worker_orcd.chat import tools as chat_tools
from worker_orcd.run_spec import (
    ConstraintKind,
    Demand,
    Message,
    OutputConstraint,
    Role,
    RunSpec,
    Tool,
    ToolCall,
    ToolChoice,
)


def to_run_spec(proto: run_pb2.RunSpec, task_id: str = "") -> RunSpec:
    """What a run is asked to do, for the task. Refuses what no engine of this release does at all."""
    kind = proto.WhichOneof("work")
    if kind is None:
        raise invalid_field("spec.work", "one of generate, embed and rerank has to be set")
    if kind == "embed":
        return _embed_spec(proto)
    if kind == "rerank":
        return _rerank_spec(proto)
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
        sampling=_sampling(work.sampling),
        constraint=_forced_call(work) or _constraint(work.output_constraint),
        deterministic=proto.deterministic,
        remaining_ms=proto.remaining_ms if proto.HasField("remaining_ms") else None,
        choices=work.n if work.HasField("n") else 1,
        call_key=_call_key(proto, task_id),
        demands=(Demand("generate", "generation"), *_demands(proto)),
        **_answer_options(work),
    )


def _embed_spec(proto: run_pb2.RunSpec) -> RunSpec:
    if not proto.embed.inputs:
        raise invalid_field("embed.inputs", "at least one text is needed")
    return RunSpec(
        inputs=tuple(proto.embed.inputs),
        remaining_ms=proto.remaining_ms if proto.HasField("remaining_ms") else None,
        demands=(Demand("embed", "embeddings"), *_demands(proto)),
    )


def _rerank_spec(proto: run_pb2.RunSpec) -> RunSpec:
    if not proto.rerank.documents:
        raise invalid_field("rerank.documents", "at least one document is needed")
    return RunSpec(
        query=proto.rerank.query,
        documents=tuple(proto.rerank.documents),
        remaining_ms=proto.remaining_ms if proto.HasField("remaining_ms") else None,
        demands=(Demand("rerank", "rerank"), *_demands(proto)),
    )


def without_time(spec: run_pb2.RunSpec) -> bytes:
    """The spec without its remaining time, serialized: equal for equal content."""
    timeless = run_pb2.RunSpec()
    timeless.CopyFrom(spec)
    timeless.ClearField("remaining_ms")
    return timeless.SerializeToString(deterministic=True)


def spec_fingerprint(spec: bytes, prefix: Sequence[log_entry_pb2.LogEntry]) -> bytes:
    """Equal for equal content. `spec` as `without_time` has it: the time shrinks while a start is tried again."""
    digest = hashlib.sha256()
    for content in (spec, *(entry.SerializeToString(deterministic=True) for entry in prefix)):
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.digest()


def _call_key(proto: run_pb2.RunSpec, task_id: str) -> str:
    """Of a task, so that its attempts give equal ids, and no two tasks of a conversation do. A deterministic one gives
    equal ids for equal requests, since they are part of the bytes.
    """
    return hashlib.sha256(without_time(proto)).hexdigest() if proto.deterministic else task_id


def _messages(chat: task_pb2.ChatInput) -> Iterator[Message]:
    for number, message in enumerate(chat.messages):
        path = f"generate.chat.messages[{number}]"
        if message.role not in list(Role):
            raise invalid_field(f"{path}.role", f"has to be one of {', '.join(Role)}")
        texts = tuple(_texts(message.content, path))
        yield Message(
            role=Role(message.role),
            content="".join(texts),
            name=message.name,
            tool_calls=tuple(_tool_calls(message.tool_calls, path)),
            tool_call_id=message.tool_call_id,
            parts=texts if len(texts) > 1 else (),
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


def _answer_options(work: task_pb2.GenerateWork) -> dict[str, Any]:
    """Those that are said."""
    names = {field.name for field in fields(AnswerOptions)}
    said = ((field, value) for field, value in work.ListFields() if field.name in names)
    return {field.name: tuple(value) if field.is_repeated else value for field, value in said}


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
        if value != SAMPLING[field.name].off:
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
