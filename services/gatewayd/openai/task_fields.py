"""What chat and plain completions have in common: a request's fields as those of a task.

Sampling options, and the other options of a task, have the names of the contract: OpenAI's are a part of
them, the others are the extensions that its client sends in `extra_body`.
"""

from dataclasses import dataclass
from typing import Any

from gatewayd.openai.fields import Fields, fill, take_into
from llama_orch.v2 import task_pb2
from llorch.errors import invalid_field
from llorch.options.generation import GENERATION
from llorch.options.sampling import SAMPLING
from llorch.options.task import TASK

# The orchestrator refuses an app and adapters, by name.
_TASK = ("model", "app", "adapters", *TASK)
# OpenAI has these in a form of its own: one text in place of a list, and log probabilities only where a flag is set.
_OF_OPENAI = ("stop", "top_logprobs")
_WORK = tuple(name for name in GENERATION if name not in _OF_OPENAI)

# They name the end user, or are hints for OpenAI's own machines; an answer does not depend on them.
_HARMLESS = ("user", "metadata", "safety_identifier", "prompt_cache_key")


@dataclass(frozen=True, slots=True)
class StreamOptions:
    wanted: bool
    include_usage: bool


def take_task(fields: Fields) -> task_pb2.TaskSpec:
    """Everything but the input, the log probabilities and how the answer is delivered."""
    task = task_pb2.TaskSpec()
    for name in _HARMLESS:
        fields.take(name)
    take_into(task, fields, _TASK)
    take_into(task.generate, fields, _WORK)
    take_into(task.generate.sampling, fields, SAMPLING)
    fill(task.generate, {"stop": _as_list(fields.take("stop"))})
    if not task.model:
        raise invalid_field("model", "it is missing; GET /v1/models lists the models")
    return task


def take_stream(fields: Fields) -> StreamOptions:
    wanted = bool(fields.take_flag("stream"))
    options = fields.take_object("stream_options")
    if options is None:
        return StreamOptions(wanted, include_usage=False)
    if not wanted:
        raise invalid_field("stream_options", "it is for streams; set stream, or leave it out")
    include_usage = bool(options.take_flag("include_usage"))
    options.take_only("include_obfuscation", False)
    options.finish()
    return StreamOptions(wanted, include_usage)


def take_constraint(fields: Fields, work: task_pb2.GenerateWork) -> None:
    """`response_format`, or the extension `grammar`."""
    schema = _schema(fields.take_object("response_format"))
    grammar = fields.take_text("grammar")
    if schema and grammar is not None:
        raise invalid_field("grammar", "it can't be given together with response_format")
    if schema:
        fill(work.output_constraint, {"json_schema": schema}, "response_format")
    elif grammar is not None:
        fill(work.output_constraint, {"grammar": grammar})


def _schema(response_format: Fields | None) -> str:
    """The JSON schema that the answer has to follow; empty where any text will do."""
    if response_format is None:
        return ""
    kind = response_format.need_text("type")
    described = response_format.take_object("json_schema") if kind == "json_schema" else None
    response_format.finish()
    if kind == "text":
        return ""
    if kind == "json_object":
        return '{"type":"object"}'
    if kind != "json_schema":
        raise invalid_field("response_format.type", "it takes text, json_object or json_schema")
    if described is None:
        raise invalid_field("response_format.json_schema", "it is missing")
    return _described_schema(described)


def _described_schema(described: Fields) -> str:
    """Answers always follow the schema, so `strict` changes nothing; name and description are for people."""
    for name in ("name", "description"):
        described.take_text(name)
    described.take_flag("strict")
    schema = described.take_json("schema")
    described.finish()
    if not schema:
        raise invalid_field(described.place("schema"), "it is missing")
    return schema


def _as_list(stop: Any) -> Any:
    if stop is None:
        return []
    return [stop] if isinstance(stop, str) else stop
