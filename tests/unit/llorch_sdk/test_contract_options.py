"""Whatever a client may say in the contract, the SDK can say, with the right type. A new field fails here."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from llama_orch.v2 import app_pb2, assignment_pb2, model_pb2, session_pb2, task_pb2
from llorch.options.assignment import AssignmentSettings
from llorch.options.model import ModelSettings
from llorch.sdk import task_options
from llorch.sdk.app_calls import AppSettings
from llorch.sdk.scalar import JSON_TEXT
from llorch.sdk.task_options import GenerateOptions, JsonObject, TaskOptions, Texts
from llorch.sdk.task_spec import embed_spec, generate_spec

PROTOS = Path(__file__).resolve().parents[3] / "proto" / "llama_orch" / "v2"

SAID_OTHERWISE = {
    "TaskSpec.generate": "generate and submit say it by its fields",
    "TaskSpec.embed": "embed says it",
    "TaskSpec.rerank": "no call takes it: no engine orders documents yet",
    "TaskSpec.model": "an argument",
    "TaskSpec.app": "the orchestrator sets it from the key, and refuses it from clients",
    "GenerateWork.prompt": "the argument prompt, with raw=True",
    "GenerateWork.chat": "the argument prompt",
    "GenerateWork.sampling": "its fields are options",
    "GenerateWork.output_constraint": "its fields are options",
    "ChatInput.messages": "the argument prompt",
    "EmbedWork.inputs": "an argument",
    "ModelSpec.name": "an argument",
    "ModelSpec.source": "an argument",
    "App.app": "an argument",
    "App.key_fingerprint": "the orchestrator sets it from the key",
    "App.create_time": "the orchestrator sets it",
    "App.problems": "the orchestrator finds them",
    "Assignment.targets": "an argument",
    "Assignment.mode": "an argument",
    "Assignment.model": "an argument",
    "Assignment.app": "an argument",
    "Assignment.create_time": "the orchestrator sets it",
    "Assignment.problems": "the orchestrator finds them",
}
OWN_WORDS = {"system": str, "raw": bool}
"""Options that are no fields of the contract."""

# What stands in their brackets is known when the test runs.
MAPPING: Any = Mapping
SEQUENCE: Any = Sequence

TYPES: Mapping[str, Any] = {
    "ChatMessage": task_options.Message,
    "ContentPart": task_options.ContentPart,
    "MediaPart": task_options.MediaPart,
    "PlacementOverrides": task_options.PlacementWishes,
    "SessionBudget": task_options.SessionBudget,
    "ToolCall": task_options.ToolCall,
    "ToolDefinition": task_options.Tool,
}
SCALARS: Mapping[int, Any] = {
    FieldDescriptor.CPPTYPE_UINT32: int,
    FieldDescriptor.CPPTYPE_UINT64: int,
    FieldDescriptor.CPPTYPE_FLOAT: float,
    FieldDescriptor.CPPTYPE_BOOL: bool,
    FieldDescriptor.CPPTYPE_STRING: str,
    FieldDescriptor.CPPTYPE_ENUM: int | str,
}

GENERATE = (
    task_pb2.TaskSpec,
    task_pb2.GenerateWork,
    task_pb2.Sampling,
    task_pb2.OutputConstraint,
    task_pb2.ChatInput,
)
CASES: Sequence[tuple[Any, tuple[Any, ...]]] = [
    (GenerateOptions, GENERATE),
    (TaskOptions, (task_pb2.TaskSpec,)),
    (task_options.Message, (task_pb2.ChatMessage,)),
    (task_options.ContentPart, (task_pb2.ContentPart,)),
    (task_options.MediaPart, (task_pb2.MediaPart,)),
    (task_options.ToolCall, (task_pb2.ToolCall,)),
    (task_options.Tool, (task_pb2.ToolDefinition,)),
    (task_options.PlacementWishes, (task_pb2.PlacementOverrides,)),
    (task_options.SessionBudget, (session_pb2.SessionBudget,)),
    (ModelSettings, (model_pb2.ModelSpec,)),
    (AppSettings, (app_pb2.App,)),
    (AssignmentSettings, (assignment_pb2.Assignment,)),
]


@pytest.mark.parametrize(("said", "messages"), CASES, ids=lambda one: getattr(one, "__name__", ""))
def test_every_field_that_a_client_may_set_can_be_said_with_its_type(said: Any, messages: tuple[Any, ...]) -> None:
    expected: dict[str, Any] = dict(OWN_WORDS) if said is GenerateOptions else {}
    for message in messages:
        for field in said_fields(message.DESCRIPTOR):
            assert field.name not in expected, "two messages share an option's name"
            expected[field.name] = type_of(field)

    hints = get_type_hints(said)
    assert set(hints) == set(expected)
    for name, kind in expected.items():
        assert hints[name] | None == kind | None, name


def test_what_is_said_otherwise_is_in_the_contract() -> None:
    known = {
        name_of(field)
        for message in (*GENERATE, task_pb2.EmbedWork, model_pb2.ModelSpec, app_pb2.App, assignment_pb2.Assignment)
        for field in message.DESCRIPTOR.fields
    }
    assert set(SAID_OTHERWISE) <= known
    assert {name_of(field) for field in task_pb2.EmbedWork.DESCRIPTOR.fields} <= set(SAID_OTHERWISE)


@pytest.mark.parametrize("name", sorted(set(GenerateOptions.__annotations__) - set(OWN_WORDS)))
def test_every_option_lands_in_its_field_and_nowhere_else(name: str) -> None:
    said = sample(name)
    options: Any = {name: said}
    spec = generate_spec("m", "Hi", options)

    (home,) = (one for one in homes(spec) if name in one.DESCRIPTOR.fields_by_name)
    assert name in {field.name for field, _ in home.ListFields()}
    if isinstance(said, int | float | str):
        assert getattr(home, name) == said
    assert without(spec, name) == generate_spec("m", "Hi", {})


@pytest.mark.parametrize("name", sorted(TaskOptions.__annotations__))
def test_options_of_every_task_are_taken_with_embeddings(name: str) -> None:
    options: Any = {name: sample(name)}

    assert getattr(embed_spec("m", ["Hi"], options), name) == getattr(generate_spec("m", "Hi", options), name)


@pytest.mark.parametrize("name", sorted(GenerateOptions.__annotations__))
def test_none_is_the_same_as_absent(name: str) -> None:
    options: Any = {name: None}

    assert generate_spec("m", "Hi", options) == generate_spec("m", "Hi", {})


def test_the_fields_that_hold_json_are_those_whose_comments_say_so() -> None:
    found = {field for field, comment in commented_fields("task.proto") if "JSON" in comment}

    assert found == JSON_TEXT


def said_fields(kind: Descriptor) -> list[FieldDescriptor]:
    fields: Any = kind.fields
    return [field for field in fields if name_of(field) not in SAID_OTHERWISE]


def name_of(field: Any) -> str:
    return f"{field.containing_type.name}.{field.name}"


def type_of(field: Any) -> Any:
    if field.full_name in JSON_TEXT:
        return JsonObject
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (SCALARS[part.cpp_type] for part in field.message_type.fields)
        return MAPPING[key, value]
    one: Any = TYPES[field.message_type.name] if field.message_type else SCALARS[field.cpp_type]
    if field.type == FieldDescriptor.TYPE_BYTES:
        one = bytes
    if not field.is_repeated:
        return one
    if one is task_options.ContentPart:
        return str | one | SEQUENCE[str | one]
    return Texts if one is str else SEQUENCE[one]


def sample(name: str) -> Any:
    fields = {field.name: field for message in GENERATE for field in said_fields(message.DESCRIPTOR)}
    field: Any = fields[name]
    samples: dict[Any, Any] = {
        "logit_bias": {7: -1.5},
        "placement": {"pin": ["garage/3090"], "fallback": True},
        "session_budget": {"turns": 3},
        "tools": [{"name": "now"}],
        "stop_token_ids": [7],
    }
    by_type: dict[Any, Any] = {int: 3, float: 0.5, bool: True, str: "x", Texts: ["a", "b"], JsonObject: {"a": 1}}
    return samples[name] if name in samples else by_type[type_of(field)]


def homes(spec: task_pb2.TaskSpec) -> tuple[Any, ...]:
    work = spec.generate
    return spec, work, work.sampling, work.output_constraint, work.chat


def without(spec: task_pb2.TaskSpec, name: str) -> task_pb2.TaskSpec:
    for home in homes(spec):
        if name in home.DESCRIPTOR.fields_by_name:
            home.ClearField(name)
    work = spec.generate
    for part in ("sampling", "output_constraint"):
        if not getattr(work, part).ListFields():
            work.ClearField(part)
    return spec


def commented_fields(file: str) -> Iterator[tuple[str, str]]:
    """Each field that is a text, with the comment above it."""
    message = comment = ""
    for line in (PROTOS / file).read_text().splitlines():
        words = line.split()
        if words[:1] == ["//"]:
            comment += line
            continue
        if words[:1] == ["message"]:
            message = words[1]
        if words[:1] == ["string"]:
            yield f"llama_orch.v2.{message}.{words[1]}", comment
        comment = ""
