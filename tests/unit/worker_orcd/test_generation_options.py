"""Sampling options, constraints and log probabilities between the contract and the worker's own words."""

import math
from dataclasses import fields, replace

import pytest

from llama_orch.v2 import log_entry_pb2, run_pb2, task_pb2
from llorch.errors import InvalidArgument
from llorch.options.sampling import Sampling
from worker_orcd.convert.log_entries import to_log_prefix
from worker_orcd.convert.run_spec import to_run_spec
from worker_orcd.convert.runs import fill_delta
from worker_orcd.engine_info import Capabilities, Fingerprint
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.engines.run_output import Particulars, RunOutput
from worker_orcd.log_entry import LogEntry, PositionLogprobs, TokenLogprob
from worker_orcd.run_spec import ConstraintKind, OutputConstraint, RunSpec
from worker_orcd.run_table import Run
from worker_orcd.task_attempt import NOTHING
from worker_orcd.validation import check_run

GOOD = RunSpec(prompt="hi")


def spec(**work: object) -> run_pb2.RunSpec:
    return run_pb2.RunSpec(generate=task_pb2.GenerateWork(prompt="hi", **work))  # type: ignore[arg-type]


def test_every_sampling_option_of_the_contract_arrives() -> None:
    named = {field.name for field in task_pb2.Sampling.DESCRIPTOR.fields}
    assert named == {field.name for field in fields(Sampling)} | {"seed"}
    asked = task_pb2.Sampling(seed=2**64 - 1, logit_bias={3: -1.5}, mirostat=2, top_k=0, dry_base=2.0)
    got = to_run_spec(spec(sampling=asked))
    assert got.seed == 2**64 - 1
    assert got.sampling == Sampling(logit_bias={3: -1.5}, mirostat=2, top_k=0, dry_base=2.0)
    of_sampling = {"seed", "logit_bias", "mirostat", "top_k", "dry_base"}
    assert {demand.capability for demand in got.demands} == {"generation"} | of_sampling


def test_what_is_not_asked_for_has_the_contracts_default() -> None:
    assert to_run_spec(spec()).sampling == Sampling()


def test_a_constraint_arrives_with_its_kind() -> None:
    constraint = task_pb2.OutputConstraint(json_schema="{}")
    assert to_run_spec(spec(output_constraint=constraint)).constraint == OutputConstraint(
        ConstraintKind.JSON_SCHEMA, "{}"
    )
    constraint = task_pb2.OutputConstraint(grammar="root ::= .")
    assert to_run_spec(spec(output_constraint=constraint)).constraint == OutputConstraint(
        ConstraintKind.GRAMMAR, "root ::= ."
    )
    assert to_run_spec(spec()).constraint is None


@pytest.mark.parametrize(("asked", "got"), [({}, None), ({"top_logprobs": 0}, 0), ({"top_logprobs": 5}, 5)])
def test_no_log_probabilities_are_something_else_than_no_alternatives(
    asked: dict[str, object], got: int | None
) -> None:
    assert to_run_spec(spec(**asked)).top_logprobs == got


def test_log_probabilities_go_out_and_come_back() -> None:
    chosen = TokenLogprob(7, -0.5, b"\xc3")
    entry = LogEntry(0, (7,), "x", logprobs=(PositionLogprobs(chosen, (TokenLogprob(8, -1.5, b"x"), chosen)),))
    run = Run("a", b"", NOTHING, private=False, admitted_at=0.0, prefix_length=0)
    run.log.append(entry)
    delta = run_pb2.RunDelta()
    fill_delta(delta, run, 0, with_start=False)
    told = delta.entries[0]
    assert told.logprobs[0].chosen.text == "\ufffd"
    assert told.logprobs[0].top[0] == log_entry_pb2.TokenLogprob(token_id=8, text="x", logprob=-1.5, raw=b"x")
    assert to_log_prefix(delta.entries) == (entry,)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(typical_p=0.0),
        Sampling(typical_p=1.1),
        Sampling(repeat_penalty=0.0),
        Sampling(repeat_penalty=10.1),
        Sampling(repeat_last_n=65_537),
        Sampling(frequency_penalty=-2.1),
        Sampling(presence_penalty=math.nan),
        Sampling(dry_multiplier=-0.1),
        Sampling(dry_base=0.9),
        Sampling(dry_allowed_length=65_537),
        Sampling(dry_penalty_last_n=65_537),
        Sampling(xtc_probability=1.1),
        Sampling(xtc_threshold=0.6),
        Sampling(mirostat=3),
        Sampling(mirostat_tau=math.inf),
        Sampling(mirostat_eta=1.1),
        Sampling(logit_bias={5: 100.1}),
        Sampling(logit_bias={5: math.nan}),
        Sampling(logit_bias=dict.fromkeys(range(1025), 1.0)),
    ],
    ids=lambda sampling: next(
        field.name for field in fields(Sampling) if getattr(sampling, field.name) != getattr(Sampling(), field.name)
    ),
)
def test_an_option_out_of_its_range_is_refused_by_name(sampling: Sampling) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_run(replace(GOOD, sampling=sampling), (), Capabilities())
    (name,) = (
        field.name for field in fields(Sampling) if getattr(sampling, field.name) != getattr(Sampling(), field.name)
    )
    assert refused.value.violations[0].field.startswith(f"generate.sampling.{name}")


def test_the_ends_of_the_ranges_pass() -> None:
    low = Sampling(0.0, 0, 0.01, 0.0, 0.01, 0.01, 0, -2.0, -2.0, 0.0, 1.0, 0, 0, 0.0, 0.0, 0, 0.0, 0.0)
    high = Sampling(
        100.0, 10**6, 1.0, 1.0, 1.0, 10.0, 65536, 2.0, 2.0, 100.0, 10.0, 65536, 65536, 1.0, 0.5, 2, 100.0, 1.0
    )
    for sampling in (low, high):
        check_run(replace(GOOD, sampling=sampling), (), Capabilities())


def test_more_alternatives_than_allowed_are_refused() -> None:
    check_run(replace(GOOD, top_logprobs=20), (), Capabilities())
    with pytest.raises(InvalidArgument, match="top_logprobs"):
        check_run(replace(GOOD, top_logprobs=21), (), Capabilities())


def particulars(token_id: int) -> Particulars:
    return Particulars(PositionLogprobs(TokenLogprob(token_id, -1.0, b"")), bytes([token_id]))


def test_particulars_stay_with_their_tokens_while_text_is_held_back() -> None:
    run = EngineRun("a", RunSpec(stop=("abcd",)))
    output = RunOutput(run, 1, 100, lambda: 0.0, Fingerprint())
    choice = output.choices[0]
    pieces: list[str | bytes] = ["a", "b", "x", "y", b"\xc3", b"\xa9", "abcd"]
    for token_id, piece in enumerate(pieces):
        choice.take(token_id, piece, particulars(token_id))
    step = output.collect()
    assert step is not None
    assert [entry.token_ids for entry in step.entries] == [(0, 1, 2), (3,), (4, 5), (6,)]
    for entry in step.entries:
        assert tuple(position.chosen.token_id for position in entry.logprobs) == entry.token_ids
        assert entry.sampler_state == bytes([entry.token_ids[-1]])
