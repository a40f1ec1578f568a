"""Every sampling option, constraint and log probability of the llama.cpp engine, with a real model."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import pytest

from llorch.device_kind import DeviceKind
from llorch.errors import InvalidArgument, Reason
from llorch.finish_reason import FinishReason
from llorch.options.sampling import Sampling
from support.engine_runs import EngineRuns
from support.real_model import smollm2
from worker_orcd.device import DeviceSet
from worker_orcd.engines.llama_cpp.engine import LlamaCppEngine
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.log_entry import LogEntry
from worker_orcd.run_spec import ConstraintKind, OutputConstraint, RunSpec

pytestmark = [pytest.mark.native, pytest.mark.req("WORK-3005")]

SPEC = RunSpec(prompt="The weather in Paris is nice. The weather in", seed=11, max_tokens=12)
UNENDING = replace(SPEC, ignore_eos=True)
"""Where processors round differently the model says something else; this one never ends before its limit."""

EXACT = replace(UNENDING, deterministic=True)
"""For tokens that are compared with those of another run, which other runs do not promise."""

GREEDY = Sampling(temperature=0.0)
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}
"""It has an end, however a model fills it in: no number of 100 digits, and no blanks between."""


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineRuns]:
    shape = LlamaCppShape(smollm2(), "m", DeviceSet(DeviceKind.CPU, ("cpu",)), 3, 512, threads=1)
    with EngineRuns(LlamaCppEngine(shape)) as runs:
        yield runs


def grammar(text: str) -> OutputConstraint:
    return OutputConstraint(ConstraintKind.GRAMMAR, text)


def schema(value: object) -> OutputConstraint:
    return OutputConstraint(ConstraintKind.JSON_SCHEMA, json.dumps(value))


def emitted(log: Sequence[LogEntry]) -> int:
    """Tokens: a character may take several, which then are one entry."""
    return sum(len(entry.token_ids) for entry in log)


def told(entry: LogEntry) -> dict[int, float]:
    return {token.token_id: token.logprob for position in entry.logprobs for token in position.top}


def test_all_options_of_the_contract_are_declared(engine: EngineRuns) -> None:
    can = engine.engine.info().capabilities
    assert len(can.sampling_options) == 20
    assert can.logprobs
    assert can.grammar
    assert can.json_schema
    assert can.multiple_choices


def what_differs(sampling: Sampling) -> str:
    usual = asdict(Sampling())
    return ",".join(f"{name}={value}" for name, value in asdict(sampling).items() if value != usual[name])


CHANGES = [
    Sampling(temperature=2.0),
    Sampling(top_k=2),
    Sampling(top_p=0.2),
    Sampling(min_p=0.5),
    Sampling(typical_p=0.2),
    Sampling(typical_p=0.2, top_k=0),
    Sampling(repeat_penalty=2.0),
    Sampling(frequency_penalty=2.0),
    Sampling(presence_penalty=2.0),
    Sampling(dry_multiplier=5.0),
    Sampling(xtc_probability=1.0, xtc_threshold=0.05),
    Sampling(xtc_probability=0.5),
    Sampling(mirostat=1),
    Sampling(mirostat=2, mirostat_tau=2.0),
    Sampling(logit_bias={260: -100.0, 28: 5.0}),
]


@pytest.mark.req("WORK-3008")
@pytest.mark.parametrize("sampling", CHANGES, ids=what_differs)
def test_an_option_has_its_effect_and_is_the_same_after_a_resume(engine: EngineRuns, sampling: Sampling) -> None:
    spec = replace(EXACT, sampling=sampling, max_tokens=24)
    whole = engine.run(spec)
    assert has_an_effect(engine, spec)
    resumed = engine.run(spec, whole.log[:9])
    assert resumed.token_ids == whole.token_ids[emitted(whole.log[:9]) :]


def has_an_effect(engine: EngineRuns, spec: RunSpec) -> bool:
    """One seed may draw the same tokens with the option and without; five do not."""
    seeds = (replace(spec, seed=seed) for seed in range(11, 16))
    return any(engine.run(one).text != engine.run(replace(one, sampling=Sampling())).text for one in seeds)


def test_a_penalty_looks_at_the_prompt_too_but_no_further_back_than_it_may(engine: EngineRuns) -> None:
    """A bias makes a word of the prompt the likeliest, whatever the model thinks of it."""
    (asked,) = engine.run(replace(EXACT, top_logprobs=20, max_tokens=1)).log[0].logprobs
    paris = next(token.token_id for token in asked.top if token.raw == b" Paris")

    def first(**options: float) -> str:
        sampling = Sampling(temperature=0.0, logit_bias={paris: 5.0}, **options)  # type: ignore[arg-type]
        return engine.run(replace(EXACT, sampling=sampling, max_tokens=1)).text

    assert first() == " Paris"
    assert first(frequency_penalty=2.0, repeat_penalty=2.0) != " Paris"
    assert first(frequency_penalty=2.0, repeat_penalty=2.0, repeat_last_n=2) == " Paris"
    assert first(frequency_penalty=2.0, repeat_penalty=2.0, repeat_last_n=0) == " Paris"


def test_a_forbidden_token_never_comes(engine: EngineRuns) -> None:
    likely = engine.run(replace(SPEC, sampling=GREEDY, max_tokens=1)).token_ids[0]
    forbidding = Sampling(logit_bias={likely: -100.0}, top_k=0, top_p=1.0, min_p=0.0)
    for seed in range(20):
        assert likely not in engine.run(replace(SPEC, seed=seed, sampling=forbidding, max_tokens=3)).token_ids


def test_a_bias_outside_of_the_vocabulary_is_refused_by_name(engine: EngineRuns) -> None:
    with pytest.raises(InvalidArgument, match=r"logit_bias.*49152.*49152 tokens"):
        engine.run(replace(SPEC, sampling=Sampling(logit_bias={49152: 1.0})))
    with pytest.raises(InvalidArgument, match="every token"):
        engine.run(replace(SPEC, sampling=Sampling(logit_bias=dict.fromkeys(range(49152), -100.0))))


def test_mirostat_is_not_resumed_without_its_state(engine: EngineRuns) -> None:
    spec = replace(UNENDING, sampling=Sampling(mirostat=2))
    whole = engine.run(spec)
    assert all(len(entry.sampler_state) == 8 for entry in whole.log)
    for state in (b"", b"12345678x", b"\xff" * 8):
        with pytest.raises(InvalidArgument, match="sampler state"):
            engine.run(spec, [entry._replace(sampler_state=state) for entry in whole.log[:3]])


def test_what_a_neighbour_does_changes_nothing(engine: EngineRuns) -> None:
    """All samplers of an engine work on the same memory, one after the other."""
    spec = replace(EXACT, sampling=Sampling(temperature=0.5))
    alone = engine.run(spec)
    neighbours = [replace(UNENDING, sampling=Sampling(temperature=2.0), seed=seed) for seed in (1, 2)]
    beside = engine.run_all([neighbours[0], spec, neighbours[1]])[1]
    assert alone.token_ids == beside.token_ids


def test_log_probabilities_are_the_models_own(engine: EngineRuns) -> None:
    warm = engine.run(replace(EXACT, top_logprobs=3, sampling=Sampling(temperature=2.0, logit_bias={28: 50.0})))
    cold = engine.run(replace(EXACT, top_logprobs=20, sampling=GREEDY, max_tokens=2))
    assert len(warm.log) == 12
    assert told(warm.log[0]) == pytest.approx(dict(list(told(cold.log[0]).items())[:3]), abs=1e-3)
    for entry in cold.log:
        (position,) = entry.logprobs
        assert position.chosen == position.top[0]
        assert position.chosen.raw.decode() == entry.text
        logprobs = [token.logprob for token in position.top]
        assert logprobs == sorted(logprobs, reverse=True)
        assert 0.2 < sum(math.exp(logprob) for logprob in logprobs) <= 1
    (only_chosen,) = engine.run(replace(SPEC, top_logprobs=0, max_tokens=1)).log[0].logprobs
    assert only_chosen.top == ()


def test_held_back_tokens_keep_their_log_probabilities(engine: EngineRuns) -> None:
    spec = replace(EXACT, sampling=GREEDY, top_logprobs=1)
    whole = engine.run(spec)
    held = engine.run(replace(spec, stop=(whole.text[4:] + "never",)))
    assert any(len(entry.token_ids) > 1 for entry in held.log)
    for entry in held.log:
        assert [position.chosen.token_id for position in entry.logprobs] == list(entry.token_ids)


def test_no_log_probabilities_without_being_asked(engine: EngineRuns) -> None:
    assert all(entry.logprobs == () for entry in engine.run(UNENDING).log)


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        Sampling(temperature=1.5),
        Sampling(mirostat=1),
        Sampling(mirostat=2),
        Sampling(repeat_penalty=1.3, dry_multiplier=1.0),
        Sampling(typical_p=0.3, top_k=0, xtc_probability=0.5),
        Sampling(logit_bias={107: -100.0}),
    ],
    ids=what_differs,
)
def test_a_schema_is_followed_whatever_the_sampling(engine: EngineRuns, sampling: Sampling) -> None:
    """And resumed as it would have gone on: to the token, for a deterministic run."""
    asked = replace(SPEC, prompt="A person as JSON:", max_tokens=150, deterministic=True)
    spec = replace(asked, sampling=sampling, constraint=schema(PERSON))
    answer = engine.run(spec)
    assert answer.finish is FinishReason.EOS
    person = json.loads(answer.text)
    assert set(person) == {"name", "age"}
    assert isinstance(person["age"], int)
    resumed = engine.run(spec, answer.log[:5])
    assert resumed.token_ids == answer.token_ids[emitted(answer.log[:5]) :]


def test_each_choice_follows_the_constraint_on_its_own(engine: EngineRuns) -> None:
    answer = engine.run(replace(SPEC, constraint=grammar('root ::= " Rome" | " London" | " Oslo"'), choices=5))
    said = ["".join(entry.text for entry in answer.log if entry.choice == number) for number in range(5)]
    assert set(said) <= {" Rome", " London", " Oslo"}
    assert answer.end is not None
    assert {choice.finish_reason for choice in answer.end.choices} == {FinishReason.EOS}


def test_the_end_comes_only_where_the_grammar_lets_it(engine: EngineRuns) -> None:
    answer = engine.run(replace(SPEC, constraint=grammar('root ::= ("ab" | "abc") "cd" "x"{20}'), max_tokens=60))
    assert answer.text in ("abcd" + "x" * 20, "abccd" + "x" * 20)
    going_on = engine.run(replace(SPEC, constraint=grammar('root ::= "x"{3}'), ignore_eos=True))
    assert (going_on.text, going_on.finish) == ("xxx", FinishReason.EOS)


def test_limits_and_stops_end_a_constrained_output_too(engine: EngineRuns) -> None:
    short = engine.run(replace(SPEC, constraint=grammar('root ::= "x"{200}'), max_tokens=3))
    assert short.finish is FinishReason.LENGTH
    stopped = engine.run(replace(SPEC, constraint=grammar('root ::= "one stop two"'), stop=("stop",)))
    assert (stopped.text, stopped.finish) == ("one ", FinishReason.STOP_STRING)


def test_a_bias_does_not_overrule_the_grammar(engine: EngineRuns) -> None:
    everything_else = Sampling(logit_bias=dict.fromkeys(range(1000), 100.0))
    assert engine.run(replace(SPEC, sampling=everything_else, constraint=grammar('root ::= "yes"'))).text == "yes"


def test_a_run_that_can_pick_nothing_fails_alone(engine: EngineRuns) -> None:
    digits = dict.fromkeys(range(32, 42), -100.0)
    constraint = grammar("root ::= [0-9]")
    failing = replace(SPEC, sampling=Sampling(logit_bias=digits), constraint=constraint)
    failed, other = engine.run_all([failing, UNENDING])
    assert failed.end is not None
    assert failed.end.failure is not None
    assert failed.end.failure.reason is Reason.INVALID_FIELD
    assert other.finish is FinishReason.LENGTH


def test_a_prefix_that_breaks_the_constraint_is_refused(engine: EngineRuns) -> None:
    log = engine.run(replace(UNENDING, max_tokens=3)).log
    with pytest.raises(InvalidArgument, match="prefix"):
        engine.run(replace(SPEC, constraint=grammar('root ::= "z"')), log)


DEEP = 20_000
BAD = [
    grammar("root ::= " + "(" * DEEP + '"a"' + ")" * DEEP),
    grammar("root ::= " + '"a"? ' * 12_000),
    grammar("root ::= root"),
    grammar("\n".join(f"r{number} ::= r{number + 1}" for number in range(3000)) + '\nroot ::= r0\nr3000 ::= "a"'),
    grammar('root ::= "a"{2001}'),
    grammar('root ::= "a" missing'),
    grammar("no grammar at all"),
    schema({"$ref": "#"}),
    schema({"$ref": "https://example.com/schema"}),
    schema({"type": "string", "pattern": "^" + "a?" * 15_000 + "$"}),
    schema({"type": "string", "pattern": "(" * 5000 + ")" * 5000}),
    schema({"allOf": [{"anyOf": [{"pattern": f"a{n}"}, {"pattern": f"b{n}"}], "type": "string"} for n in range(14)]}),
    schema({"not": {"type": "string"}}),
    schema({f"a{n}": {"$ref": f"#/a{n + 1}"} for n in range(1500)}),
    OutputConstraint(ConstraintKind.JSON_SCHEMA, '{"a":' * DEEP),
    OutputConstraint(ConstraintKind.JSON_SCHEMA, '{"items":' * 201 + "{}" + "}" * 201),
    OutputConstraint(ConstraintKind.JSON_SCHEMA, "[]"),
    OutputConstraint(ConstraintKind.JSON_SCHEMA, '{"maximum": NaN}'),
]


@pytest.mark.parametrize("constraint", BAD, ids=lambda constraint: constraint.text[:30])
def test_a_constraint_that_can_not_be_followed_is_refused_with_a_reason(
    engine: EngineRuns, constraint: OutputConstraint
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        engine.run(replace(SPEC, constraint=constraint))
    assert refused.value.reason is Reason.INVALID_GRAMMAR
    assert f"generate.output_constraint.{constraint.kind}: " in refused.value.message
    assert len(refused.value.message) < 500


def test_a_recursive_schema_is_followed(engine: EngineRuns) -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "additionalProperties": False}
    answer = engine.run(replace(SPEC, constraint=schema({"$defs": {"node": node}, "$ref": "#/$defs/node"})))
    assert answer.text.lstrip().startswith("{")
