import json

import pytest

from llorch.errors import InvalidArgument
from worker_orcd.engines.sim import sim_text, sim_tokens
from worker_orcd.engines.sim.parameters import Fault, FaultKind, SimParameters, parse_parameters
from worker_orcd.engines.sim.tokens import VOCABULARY_SIZE, sim_prompt_tokens


def test_tokens_depend_on_seed_choice_and_index_alone() -> None:
    assert sim_tokens(1, 0, 20)[:10] == sim_tokens(1, 0, 10)
    assert sim_tokens(1, 0, 10) != sim_tokens(2, 0, 10)
    assert sim_tokens(1, 0, 10) != sim_tokens(1, 1, 10)
    assert all(0 <= token.token_id < VOCABULARY_SIZE for token in sim_tokens(2**64 - 1, 3, 200))


def test_this_release_says_what_every_release_said() -> None:
    """Recorded streams are checked against these: a change breaks them all."""
    assert sim_text(42, 0, 4) == " büba büke vake doze"


def test_a_prompt_has_a_token_per_four_bytes() -> None:
    assert [sim_prompt_tokens(prompt) for prompt in ("", "a", "abcd", "abcde")] == [1, 1, 1, 2]


def test_parameters_are_read_from_json() -> None:
    text = json.dumps({"decode_tokens_per_s": 250, "faults": [{"kind": "abort", "at_token": 3, "marker": "boom"}]})
    assert parse_parameters(text) == SimParameters(
        decode_tokens_per_s=250, faults=(Fault(FaultKind.ABORT, at_token=3, marker="boom"),)
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "sim"),
        ("[]", "sim"),
        ('{"decode_tokens": 1}', "sim.decode_tokens"),
        ('{"load_s": -1}', "sim.load_s"),
        ('{"load_s": NaN}', "sim.load_s"),
        ('{"eos_after": 1.5}', "sim.eos_after"),
        ('{"vram_mib": true}', "sim.vram_mib"),
        ('{"fail_load": 1}', "sim.fail_load"),
        ('{"faults": {}}', "sim.faults"),
        ('{"faults": [{"kind": "burn"}]}', "sim.faults[0].kind"),
        ('{"faults": [{"kind": "hang", "at": 1}]}', "sim.faults[0].at"),
    ],
)
def test_a_wrong_parameter_is_named(text: str, named: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_parameters(text)
    assert refused.value.violations[0].field == named


def test_a_step_of_many_runs_takes_longer() -> None:
    parameters = SimParameters(decode_tokens_per_s=100, batch_slowdown=0.02)
    assert parameters.step_s(1) == pytest.approx(0.01)
    assert parameters.step_s(32) == pytest.approx(0.0162)
