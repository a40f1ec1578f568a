"""The reasons that programs act on: one list in the contract, its twin in the error tree."""

import json
import re
from pathlib import Path

import pytest
from google.rpc import status_pb2

from gatewayd import errors, sse
from gatewayd.openai import errors as openai_errors
from llama_orch.v2 import error_reason_pb2, run_pb2, task_event_pb2
from llorch.errors import (
    Aborted,
    FailedPrecondition,
    LlorchError,
    PermissionDenied,
    Reason,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from llorch.rpc.reasons import reason_to_proto
from llorch.rpc.status import error_from_details, status_details
from llorch.sdk.convert import event_from_message
from llorch.sdk.events import Failed
from llorch.task_failure import failure_of_task
from orchestratord.convert.task_events import error_to_proto
from orchestratord.core.facts.queue_room import QueuePolicy
from orchestratord.core.facts.task import TaskError
from worker_orcd.convert import runs
from worker_orcd.log_entry import RunEnd, RunFailure
from worker_orcd.run_table import Run
from worker_orcd.task_attempt import NOTHING

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


def test_the_contract_marks_the_reasons_of_which_the_same_request_may_succeed_later() -> None:
    documented = re.findall(r"((?:^ *//.*\n)+) *ERROR_REASON_(\w+) = \d+;", PROTO.read_text(), re.MULTILINE)
    marked = {name for comment, name in documented if re.search(r"// Retryable\.$", comment, re.MULTILINE)}
    assert marked == {reason.value for reason in Reason if reason.is_retryable}


@pytest.mark.parametrize("leaf", [ResourceExhausted, FailedPrecondition, Aborted])
@pytest.mark.parametrize("reason", list(Reason))
def test_every_way_to_tell_a_reason_has_the_same_answer(reason: Reason, leaf: type[LlorchError]) -> None:
    """Whatever the code of the refusal is, and whether a delay was set or not."""
    may_retry = reason.is_retryable
    refusal = leaf(reason, "no", retry_after_ms=1200)

    body = errors.error_body(refusal, "cor-1")["error"]
    assert (body["retryable"], "retry_after_ms" in body) == (may_retry, may_retry)
    assert (b"retry-after" in dict(errors.error_headers(refusal))) is may_retry
    assert dict(openai_errors.error_headers(refusal))[b"x-should-retry"] == str(may_retry).lower().encode()
    frame = json.loads(sse.encode_error(refusal).split(b"data: ")[1])
    assert (frame["retryable"], "retry_after_ms" in frame) == (may_retry, may_retry)

    status = status_pb2.Status.FromString(status_details(refusal))
    assert any(detail.type_url.endswith("RetryInfo") for detail in status.details) is may_retry
    heard = error_from_details(status_details(refusal))
    assert heard is not None
    assert (heard.reason, heard.retry_after_ms) == (reason, 1200 if may_retry else None)

    told = error_to_proto(TaskError(reason, "no"))
    assert told.retryable is may_retry
    failed = event_from_message(task_event_pb2.TaskEvent(task_id="t", error=told))
    assert isinstance(failed, Failed)
    assert failed.retryable is may_retry
    assert openai_errors.failure_of(told).reason.is_retryable is may_retry
    assert error_from_worker(reason).retryable is may_retry


def error_from_worker(reason: Reason) -> task_event_pb2.Error:
    delta = run_pb2.RunDelta()
    run = Run("attempt-1", b"", NOTHING, False, 0.0, 0, end=RunEnd(failure=RunFailure(reason, "no")))
    runs.fill_delta(delta, run, 0, with_start=False)
    assert delta.end.error.reason == reason_to_proto(reason)
    return delta.end.error


def test_a_spent_budget_is_no_reason_to_come_back() -> None:
    assert not Reason.BUDGET_SPENT.is_retryable
    assert Reason.QUOTA_EXCEEDED.is_retryable


@pytest.mark.parametrize(
    ("refusal", "legacy_code"),
    [
        (Unauthenticated(Reason.TOKEN_MISSING, ""), 40101),
        (Unauthenticated(Reason.TOKEN_INVALID, ""), 40102),
        (PermissionDenied(Reason.NOT_PERMITTED, ""), 40301),
        (PermissionDenied(Reason.SOURCE_REFUSED, ""), None),
        (PermissionDenied(Reason.CPU_NOT_ALLOWED, ""), None),
        (FailedPrecondition(Reason.NOT_PERMITTED, ""), None),
        (FailedPrecondition(Reason.SET_ELSEWHERE, ""), None),
        (Unavailable(Reason.TOKEN_INVALID, ""), None),
    ],
)
def test_the_codes_of_the_first_release_are_told_only_with_their_status(
    refusal: LlorchError, legacy_code: int | None
) -> None:
    assert errors.error_body(refusal, "cor-1")["error"].get("legacy_code") == legacy_code
    if legacy_code is not None:
        assert errors.http_status(refusal) == legacy_code // 100


@pytest.mark.parametrize(
    ("refusal", "policy"),
    [
        (ResourceExhausted(Reason.QUEUE_FULL, "", metadata={"policy_label": "reject"}), "reject"),
        (failure_of_task(Reason.DROPPED_FROM_QUEUE, "", retry_after_ms=None), QueuePolicy.DROP_LRU),
        (ResourceExhausted(Reason.QUOTA_EXCEEDED, ""), None),
        (ResourceExhausted(Reason.BUDGET_SPENT, ""), None),
        (ResourceExhausted(Reason.TOO_MANY_CALLS, ""), None),
    ],
)
def test_a_policy_is_told_where_a_policy_has_refused(refusal: LlorchError, policy: str | None) -> None:
    assert errors.http_status(refusal) == 429
    assert errors.error_body(refusal, "cor-1")["error"].get("policy_label") == policy
    header = policy.encode() if policy else None
    assert dict(errors.error_headers(refusal)).get(b"x-backpressure-policy") == header
    assert dict(openai_errors.error_headers(refusal)).get(b"x-backpressure-policy") == header
