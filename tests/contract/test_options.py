"""The tables of options are what the contract says, field by field, and all that repeats them repeats them rightly."""

import pytest
from google.protobuf.descriptor import Descriptor

from llama_orch.v2 import app_pb2, assignment_pb2, model_pb2, session_pb2, task_pb2, worker_pb2
from llorch.options.app import APP
from llorch.options.assignment import ASSIGNMENT
from llorch.options.embedding import EMBEDDING
from llorch.options.generation import CHAT, GENERATION, OUTPUT_CONSTRAINT
from llorch.options.model import MODEL
from llorch.options.option import Table
from llorch.options.sampling import SAMPLING
from llorch.options.task import PLACEMENT, SESSION_BUDGET, TASK
from support.proto_comments import field_comments

TABLES: dict[str, tuple[Descriptor, Table, set[str]]] = {
    "Sampling": (task_pb2.Sampling.DESCRIPTOR, SAMPLING, set()),
    "GenerateWork": (
        task_pb2.GenerateWork.DESCRIPTOR,
        GENERATION,
        {"prompt", "chat", "sampling", "output_constraint"},
    ),
    "ChatInput": (task_pb2.ChatInput.DESCRIPTOR, CHAT, {"messages"}),
    "OutputConstraint": (task_pb2.OutputConstraint.DESCRIPTOR, OUTPUT_CONSTRAINT, set()),
    "EmbedWork": (task_pb2.EmbedWork.DESCRIPTOR, EMBEDDING, set()),
    "TaskSpec": (
        task_pb2.TaskSpec.DESCRIPTOR,
        TASK,
        {"generate", "embed", "rerank", "model", "app", "adapters"},
    ),
    "PlacementOverrides": (task_pb2.PlacementOverrides.DESCRIPTOR, PLACEMENT, set()),
    "SessionBudget": (session_pb2.SessionBudget.DESCRIPTOR, SESSION_BUDGET, set()),
    "ModelSpec": (model_pb2.ModelSpec.DESCRIPTOR, MODEL, {"name", "source"}),
    "App": (app_pb2.App.DESCRIPTOR, APP, {"app", "key_fingerprint", "create_time"}),
    "Assignment": (
        assignment_pb2.Assignment.DESCRIPTOR,
        ASSIGNMENT,
        {
            "assignment_id",
            "model",
            "app",
            "mode",
            "keep_loaded",
            "replicas_min",
            "replicas_max",
            "fallback",
            "create_time",
        },
    ),
}
"""With the fields that are no options: what the message is about, and what it holds of other messages."""

FIELDS = [
    pytest.param(message, field, id=f"{message}.{field}")
    for message, (_, table, _) in TABLES.items()
    for field in table
]


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


def test_a_worker_has_the_ranges_of_its_model() -> None:
    comments = field_comments(worker_pb2.WorkerSpec.DESCRIPTOR.name)
    assert f"Range {MODEL['slots'].range_words}." in comments["slots"]
    assert f"Range {MODEL['context'].range_words}." in comments["context_per_slot"]
