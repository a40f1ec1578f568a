"""The reasons that programs act on: one list in the contract, its twin in the error tree."""

import re
from pathlib import Path

from llama_orch.v2 import error_reason_pb2
from llorch.errors import Reason

PREFIX = "ERROR_REASON_"
PROTO = Path(__file__).resolve().parents[2] / "proto" / "llama_orch" / "v2" / "error_reason.proto"


def test_the_contract_and_the_error_tree_know_the_same_reasons() -> None:
    contract = {name.removeprefix(PREFIX) for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name} - {
        "UNSPECIFIED"
    }
    assert contract == {reason.value for reason in Reason}
    assert all(reason.name == reason.value for reason in Reason)


def test_every_reason_says_what_to_do() -> None:
    documented = re.findall(r"((?:^ *//.*\n)+) *ERROR_REASON_(\w+) = \d+;", PROTO.read_text(), re.MULTILINE)
    comments = {name: comment for comment, name in documented}
    assert comments.keys() == {reason.value for reason in Reason} | {"UNSPECIFIED"}
    silent = [name for name, comment in comments.items() if name != "UNSPECIFIED" and "What to do:" not in comment]
    assert not silent
