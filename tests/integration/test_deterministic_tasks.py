"""A deterministic task through all daemons: its receipt arrives, and says what can be checked."""

import json
from hashlib import sha256

import pytest

from llama_orch.v2 import error_reason_pb2, task_pb2
from support.streams import check_stream
from support.whole_system import WholeSystem, task
from worker_orcd.engines.sim.tokens import sim_tokens

TOKENS = 20


def token_digest(*choices: list[int]) -> str:
    return sha256(b"".join(token_id.to_bytes(4, "little") for choice in choices for token_id in choice)).hexdigest()


def spec(deterministic: bool = True) -> task_pb2.TaskSpec:
    return task(max_tokens=TOKENS, deterministic=deterministic)


@pytest.mark.req("WORK-3003")
async def test_a_deterministic_task_ends_with_a_receipt_of_its_tokens(system: WholeSystem) -> None:
    events = await system.generate(spec())
    check_stream(events)
    receipt = events[-1].end.receipt
    token_ids = [token_id for event in events for token_id in event.tokens.token_ids]
    assert receipt.token_digest == token_digest(token_ids)
    assert token_ids == [token.token_id for token in sim_tokens(7, 0, TOKENS)]
    assert receipt.seed == 7
    assert receipt.fingerprint.device_kind == "simulated"


async def test_the_receipt_of_several_choices_covers_them_in_order(system: WholeSystem) -> None:
    several = spec()
    several.generate.n = 2
    events = await system.generate(several)
    choices: list[list[int]] = [[], []]
    for event in events:
        choices[event.tokens.choice] += event.tokens.token_ids
    assert events[-1].end.receipt.token_digest == token_digest(*choices)


@pytest.mark.req("WORK-3003")
async def test_a_receipt_is_shown_over_http(system: WholeSystem) -> None:
    body = {"model": "sim", "deterministic": True, "generate": {"prompt": "hello", "max_tokens": TOKENS}}
    accepted = await system.http.post("/v2/tasks", json=body)
    shown = await system.http.get(f"/v2/tasks/{accepted.json()['task_id']}/events")
    end = [json.loads(line[5:]) for line in shown.text.splitlines() if line.startswith("data:")][-1]
    assert end["type"] == "end"
    assert len(end["receipt"]["token_digest"]) == 64
    assert end["receipt"]["fingerprint"]["engine_version"].startswith("sim")


async def test_other_tasks_have_no_receipt(system: WholeSystem) -> None:
    events = await system.generate(spec(deterministic=False))
    assert not events[-1].end.HasField("receipt")


async def test_what_the_worker_does_not_declare_ends_the_task_and_names_it(system: WholeSystem) -> None:
    """As it goes with `deterministic` on a worker whose proof failed."""
    unsupported = spec()
    unsupported.generate.sampling.typical_p = 0.5
    events = await system.generate(unsupported)
    error = events[-1].error
    assert error.reason == error_reason_pb2.ERROR_REASON_UNSUPPORTED_OPTION
    assert "typical_p" in error.message
    assert not error.retryable
