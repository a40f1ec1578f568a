import math
from dataclasses import replace

import pytest

from llorch.errors import FailedPrecondition, InvalidArgument, Reason
from llorch.options.sampling import Sampling
from worker_orcd.engine_info import Capabilities
from worker_orcd.log_entry import LogEntry
from worker_orcd.run_spec import Demand, Message, Role, RunSpec
from worker_orcd.validation import check_run

GOOD = RunSpec(prompt="hi")


def test_a_good_run_passes() -> None:
    check_run(replace(GOOD, max_tokens=1, stop=("x",), choices=16), (), Capabilities())


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=math.nan),
        Sampling(temperature=math.inf),
        Sampling(temperature=-0.1),
        Sampling(temperature=100.5),
        Sampling(top_k=1_000_001),
        Sampling(top_p=0.0),
        Sampling(top_p=1.01),
        Sampling(top_p=math.nan),
        Sampling(min_p=-0.1),
        Sampling(min_p=math.nan),
    ],
)
def test_a_number_that_can_not_be_right_is_refused(sampling: Sampling) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_run(replace(GOOD, sampling=sampling), (), Capabilities())
    assert refused.value.violations[0].field.startswith("generate.sampling.")


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (RunSpec(), "generate.prompt"),
        (RunSpec(messages=(Message(Role.USER, ""),)), "generate.chat.messages"),
        (replace(GOOD, max_tokens=0), "generate.max_tokens"),
        (replace(GOOD, max_tokens=1_048_577), "generate.max_tokens"),
        (replace(GOOD, choices=0), "generate.n"),
        (replace(GOOD, choices=17), "generate.n"),
        (replace(GOOD, remaining_ms=0), "remaining_ms"),
        (replace(GOOD, stop=("",)), "generate.stop[0]"),
        (replace(GOOD, stop=("x" * 1025,)), "generate.stop[0]"),
        (replace(GOOD, stop=("x",) * 65), "generate.stop"),
        (replace(GOOD, stop_token_ids=tuple(range(65))), "generate.stop_token_ids"),
    ],
)
def test_a_field_that_can_not_be_right_is_named(spec: RunSpec, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_run(spec, (), Capabilities())
    assert refused.value.violations[0].field.startswith(field)


def test_a_prefix_of_a_choice_that_was_not_asked_for_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        check_run(GOOD, (LogEntry(1, (1,), "x"),), Capabilities())


def test_an_option_that_is_not_declared_is_refused_by_name() -> None:
    spec = replace(GOOD, demands=(Demand("generate.top_logprobs", "logprobs"),))
    with pytest.raises(InvalidArgument) as refused:
        check_run(spec, (), Capabilities())
    assert refused.value.reason is Reason.UNSUPPORTED_OPTION
    assert "generate.top_logprobs" in refused.value.message
    check_run(spec, (), Capabilities(logprobs=True))


@pytest.mark.req("WORK-3003")
def test_equal_bytes_are_promised_only_where_they_were_proven() -> None:
    spec = replace(GOOD, deterministic=True, demands=(Demand("deterministic", "deterministic"),))
    with pytest.raises(FailedPrecondition) as refused:
        check_run(spec, (), Capabilities())
    assert refused.value.reason is Reason.UNSUPPORTED_OPTION
    check_run(spec, (), Capabilities(deterministic=True))
