"""The tables of options are what the contract says, field by field, and all that repeats them repeats them rightly."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor

from gatewayd.openai.chat_request import read_chat
from gatewayd.openai.completion_request import read_completion
from llama_orch.v2 import (
    app_pb2,
    assignment_pb2,
    model_pb2,
    run_pb2,
    session_pb2,
    task_pb2,
    task_service_pb2,
    worker_pb2,
)
from llorch.errors import InvalidArgument
from llorch.options.app import APP
from llorch.options.assignment import ASSIGNMENT
from llorch.options.embedding import EMBEDDING
from llorch.options.generation import CHAT, GENERATION, MESSAGES, OUTPUT_CONSTRAINT
from llorch.options.model import MODEL
from llorch.options.option import Table
from llorch.options.rerank import RERANK
from llorch.options.sampling import SAMPLING, Sampling
from llorch.options.task import PLACEMENT, SESSION_BUDGET, TASK
from llorch.options.tokens import TOKENIZE
from llorch.sdk.task_options import GenerateOptions, PlacementWishes, SessionBudget
from orchestratord.convert.generate_checks import check_generate
from support.proto_comments import field_comments
from worker_orcd.convert.run_spec import to_run_spec
from worker_orcd.engine_info import Capabilities
from worker_orcd.validation import check_run

TABLES: dict[str, tuple[Descriptor, Table, set[str]]] = {
    "Sampling": (task_pb2.Sampling.DESCRIPTOR, SAMPLING, set()),
    "GenerateWork": (
        task_pb2.GenerateWork.DESCRIPTOR,
        GENERATION,
        {"prompt", "chat", "sampling", "output_constraint"},
    ),
    "ChatInput": (task_pb2.ChatInput.DESCRIPTOR, {**CHAT, "messages": MESSAGES}, set()),
    "OutputConstraint": (task_pb2.OutputConstraint.DESCRIPTOR, OUTPUT_CONSTRAINT, set()),
    "EmbedWork": (task_pb2.EmbedWork.DESCRIPTOR, EMBEDDING, set()),
    "RerankWork": (task_pb2.RerankWork.DESCRIPTOR, RERANK, set()),
    "TokenizeRequest": (task_service_pb2.TokenizeRequest.DESCRIPTOR, TOKENIZE, {"model"}),
    "TaskSpec": (
        task_pb2.TaskSpec.DESCRIPTOR,
        TASK,
        {"generate", "embed", "rerank", "model", "app", "adapters"},
    ),
    "PlacementOverrides": (task_pb2.PlacementOverrides.DESCRIPTOR, PLACEMENT, set()),
    "SessionBudget": (session_pb2.SessionBudget.DESCRIPTOR, SESSION_BUDGET, set()),
    "ModelSpec": (model_pb2.ModelSpec.DESCRIPTOR, MODEL, {"name", "source"}),
    "App": (app_pb2.App.DESCRIPTOR, APP, {"app", "key_fingerprint", "create_time", "problems"}),
    "Assignment": (
        assignment_pb2.Assignment.DESCRIPTOR,
        ASSIGNMENT,
        {
            "assignment_id",
            "model",
            "app",
            "mode",
            "create_time",
            "problems",
        },
    ),
}
"""With the fields that are no options: what the message is about, and what it holds of other messages."""

EXAMPLES: dict[str, object] = {
    "seed": 7,
    "logit_bias": {"7": 1},
    "max_tokens": 5,
    "stop": ["END"],
    "stop_token_ids": [2],
    "ignore_eos": True,
    "control_tokens": True,
    "continue_last_message": True,
    "n": 2,
    "tools": [{"type": "function", "function": {"name": "look"}}],
    "tool_choice": "none",
    "template_values": {"enable_thinking": False},
    "grammar": 'root ::= "a"',
    "session_id": "s",
    "priority": "batch",
    "deadline_ms": 5,
    "placement": {"pin": ["garage"]},
    "deterministic": True,
    "request_id": "r",
    "session_budget": {"turns": 1},
}

NUMBERS = [name for name, option in SAMPLING.items() if option.allowed and not option.entries]
FIELDS = [
    pytest.param(message, field, id=f"{message}.{field}")
    for message, (_, table, _) in TABLES.items()
    for field in table
]


def example(name: str) -> object:
    """A value that is right for an option: its default where that is a number."""
    return EXAMPLES[name] if name in EXAMPLES else SAMPLING[name].default


HI = {"role": "user", "content": "Hi"}


def chat(**options: object) -> task_pb2.TaskSpec:
    return read_chat(json.dumps({"model": "m", "messages": [HI], **options}).encode()).task


def completion(**options: object) -> task_pb2.TaskSpec:
    return read_completion(json.dumps({"model": "m", "prompt": "Hi", **options}).encode()).task


def work(sampling: dict[str, Any]) -> task_pb2.GenerateWork:
    return task_pb2.GenerateWork(prompt="Hi", sampling=task_pb2.Sampling(**sampling))


def by_orchestrator(work: task_pb2.GenerateWork) -> None:
    check_generate(work)


def by_worker(work: task_pb2.GenerateWork) -> None:
    engine = Capabilities(
        generation=True, chat=True, tools=True, json_schema=True, sampling_options=frozenset(SAMPLING)
    )
    check_run(to_run_spec(run_pb2.RunSpec(generate=work)), (), engine)


@pytest.mark.parametrize("message", TABLES)
def test_every_field_of_a_message_is_in_its_table_or_is_no_option(message: str) -> None:
    descriptor, table, others = TABLES[message]
    assert table.keys() | others == {field.name for field in descriptor.fields}
    assert table.keys() & others == set()


@pytest.mark.parametrize(("message", "field"), FIELDS)
def test_the_comment_of_a_field_says_what_the_table_says(message: str, field: str) -> None:
    option = TABLES[message][1][field]
    told = f"{option.meaning} {option.facts}".strip()
    rest = field_comments(message)[field].removeprefix(told)
    assert field_comments(message)[field] == told + rest
    assert not any(word in rest for word in ("Default", "Range", "At least", "entries", " = off"))


@pytest.mark.parametrize("ask", [chat, completion])
@pytest.mark.parametrize("name", [*SAMPLING, *sorted(GENERATION.keys() - {"top_logprobs"}), *TASK, "grammar"])
def test_the_openai_door_takes_every_option_by_its_name(ask: Callable[..., task_pb2.TaskSpec], name: str) -> None:
    """`response_format` has the JSON schemas; log probabilities have OpenAI's form, and tests of their own."""
    assert ask(**{name: example(name)}) != ask()


def test_control_tokens_go_with_a_plain_prompt_only() -> None:
    with pytest.raises(InvalidArgument, match=r"generate\.control_tokens: goes with a plain prompt"):
        check_generate(chat(control_tokens=True).generate)


SO = {"role": "assistant", "content": "so"}
CALLING = SO | {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}]}


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        (completion(continue_last_message=True), "goes with a chat"),
        (chat(continue_last_message=True), "has to be the assistant's, and is of the role 'user'"),
        (chat(messages=[HI, CALLING], continue_last_message=True), "has tool calls"),
        (chat(messages=[HI, SO | {"content": "\n"}], continue_last_message=True), "has no text"),
        (
            chat(messages=[HI, SO], tools=EXAMPLES["tools"], tool_choice="required", continue_last_message=True),
            "a tool has to be called",
        ),
    ],
)
def test_orchestrator_and_worker_refuse_to_continue_what_is_no_message_of_the_assistant(
    asked: task_pb2.TaskSpec, what: str
) -> None:
    for check in (by_orchestrator, by_worker):
        with pytest.raises(InvalidArgument, match=rf"^generate\.continue_last_message: .*{what}"):
            check(asked.generate)


def test_orchestrator_and_worker_let_a_message_of_the_assistant_be_continued() -> None:
    asked = chat(messages=[HI, SO], continue_last_message=True).generate
    for check in (by_orchestrator, by_worker):
        check(asked)  # raises what it refuses
    assert to_run_spec(run_pb2.RunSpec(generate=asked)).continue_last_message


@pytest.mark.parametrize("name", CHAT)
def test_the_openai_door_takes_the_options_of_a_chat_by_their_names(name: str) -> None:
    assert chat(**{name: example(name)}) != chat()


@pytest.mark.parametrize("name", SAMPLING)
def test_a_sampling_option_reaches_the_task_through_the_openai_door(name: str) -> None:
    sampling = chat(**{name: example(name)}).generate.sampling
    assert [field.name for field, _ in sampling.ListFields()] == [name]


def test_a_parameter_of_the_sdk_is_there_for_every_option_of_a_task() -> None:
    tables = (TASK, GENERATION, SAMPLING, CHAT, OUTPUT_CONSTRAINT)
    assert GenerateOptions.__annotations__.keys() >= {name for table in tables for name in table}
    assert PlacementWishes.__annotations__.keys() == PLACEMENT.keys()
    assert SessionBudget.__annotations__.keys() == SESSION_BUDGET.keys()


@pytest.mark.parametrize("name", NUMBERS)
def test_orchestrator_and_worker_take_a_default_and_refuse_what_is_above_the_range(name: str) -> None:
    allowed = SAMPLING[name].allowed
    assert allowed is not None
    for check in (by_orchestrator, by_worker):
        check(work({name: SAMPLING[name].default}))
        with pytest.raises(InvalidArgument) as refused:
            check(work({name: 2 * int(allowed.high) + 1}))
        assert refused.value.violations[0].field == f"generate.sampling.{name}"
        assert SAMPLING[name].range_words in refused.value.message


def test_what_was_not_said_has_the_defaults_of_the_table() -> None:
    spec = to_run_spec(run_pb2.RunSpec(generate=task_pb2.GenerateWork(prompt="Hi")))
    assert spec.sampling == Sampling()
    assert spec.choices == GENERATION["n"].default


@pytest.mark.parametrize("name", SAMPLING)
def test_an_option_that_is_off_asks_nothing_of_an_engine_and_any_other_value_does(name: str) -> None:
    off, on = SAMPLING[name].off, {7: 1.0} if name == "logit_bias" else 2
    said = {} if off is None else {name: off}
    assert [demand.capability for demand in to_run_spec(run_pb2.RunSpec(generate=work(said))).demands] == ["generation"]
    demands = to_run_spec(run_pb2.RunSpec(generate=work({name: on}))).demands
    assert [demand.capability for demand in demands] == ["generation", name]


def test_a_worker_has_the_ranges_of_its_model() -> None:
    comments = field_comments(worker_pb2.WorkerSpec.DESCRIPTOR.name)
    assert f"Range {MODEL['slots'].range_words}." in comments["slots"]
    assert f"Range {MODEL['context'].range_words}." in comments["context_per_slot"]
