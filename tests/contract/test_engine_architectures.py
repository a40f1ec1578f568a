"""What every engine has to do, over every kind of model: with a cache, with windows, with states, and with both."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from llorch.device_kind import DeviceKind
from llorch.finish_reason import FinishReason
from llorch.options.sampling import Sampling
from support.engine_bench import Bench, ended, until
from support.tiny_models import GENERATING, WINDOW, write_tiny_model
from worker_orcd.device import DeviceSet
from worker_orcd.engines.llama_cpp.engine import LlamaCppEngine
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.run_spec import Message, Role, RunSpec

pytestmark = pytest.mark.native

SLOTS = 3
CONTEXT = 1024
"""Windowed layers keep 768 of these tokens."""

SPEC = RunSpec(prompt="hello world", seed=11, max_tokens=12, sampling=Sampling(temperature=0.0), ignore_eos=True)
LONG = "the time of all words is now and then " * 10
QUESTIONS = [" who are you", " what did they say about it", " who is it"]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {architecture: write_tiny_model(folder, architecture) for architecture in GENERATING}


@pytest.fixture(params=GENERATING)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def bench(models: dict[str, Path], architecture: str) -> AsyncIterator[Bench]:
    async for loaded in load(models[architecture]):
        yield loaded


async def load(path: Path, *, slots: int = SLOTS) -> AsyncIterator[Bench]:
    devices = DeviceSet(DeviceKind.CPU, ("cpu",))
    engine = LlamaCppEngine(LlamaCppShape(path, "m", devices, slots, CONTEXT, threads=1))
    await engine.load()
    try:
        yield Bench(engine)
    finally:
        await engine.close()


async def test_it_answers_and_prompts_matter(bench: Bench) -> None:
    one = await bench.run("a", SPEC)
    other = await bench.run("b", replace(SPEC, prompt="one two three little words"))
    assert (one.finish, len(one.token_ids)) == (FinishReason.LENGTH, 12)
    assert one.token_ids != other.token_ids
    assert len(set(one.token_ids)) > 1, "a model that says one token only proves nothing"


async def test_a_slot_that_was_used_says_what_a_fresh_one_says(bench: Bench) -> None:
    """Whatever is left of an earlier run: all of its tokens, the beginning of them, or a prompt that was cut."""
    fresh = await bench.run("fresh", SPEC)
    await bench.run("other", replace(SPEC, prompt=LONG, max_tokens=40))
    cut = await bench.submit("cut", replace(SPEC, prompt=LONG * 2, max_tokens=None))
    await until(cut, lambda seen: seen.starts == 1)
    bench.engine.cancel("cut")
    await ended(cut)
    for number in range(2 * SLOTS):
        again = await bench.run(f"again-{number}", SPEC)
        assert again.token_ids == fresh.token_ids, number


async def test_a_conversation_that_goes_on_says_what_it_would_say_at_once(
    models: dict[str, Path], architecture: str, bench: Bench
) -> None:
    """The next turn begins with the last one and its answer; a slot may keep what it has, and must not mix it up."""
    prompts, answers = [LONG], []
    for number, question in enumerate(QUESTIONS):
        said = await bench.run(f"turn-{number}", replace(SPEC, prompt=prompts[-1]))
        answers.append(said.token_ids)
        prompts.append(f"{prompts[-1]}{said.text}{question}")
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=False)):
        async for fresh in load(models[architecture], slots=1):
            assert (await fresh.run(f"{number}", replace(SPEC, prompt=prompt))).token_ids == answer, number


async def test_runs_side_by_side_say_what_they_say_alone(bench: Bench) -> None:
    prompts = ["hello world", LONG, "now who can make the water"]
    alone = [await bench.run(f"alone-{number}", replace(SPEC, prompt=text)) for number, text in enumerate(prompts)]
    beside = [await bench.submit(f"beside-{number}", replace(SPEC, prompt=text)) for number, text in enumerate(prompts)]
    for one, other in zip(alone, beside, strict=True):
        await ended(other)
        assert other.finish is FinishReason.LENGTH
        assert other.token_ids[:1] == one.token_ids[:1], "later ones may differ: batches round otherwise"
    assert bench.engine.stats().slots_busy == 0


async def test_cancel_frees_the_slot_and_leaves_the_others_alone(bench: Bench) -> None:
    spec = replace(SPEC, max_tokens=60, deterministic=True)
    others = [await bench.submit(f"other-{number}", spec) for number in range(SLOTS - 1)]
    seen = await bench.submit("a", replace(SPEC, max_tokens=None))
    await until(seen, lambda seen: bool(seen.log))
    bench.engine.cancel("a")
    assert (await ended(seen)).finish is FinishReason.CANCELLED
    for other in others:
        assert (await ended(other)).finish is FinishReason.LENGTH
    assert others[0].token_ids == others[1].token_ids
    assert (await bench.run("b", SPEC)).finish is FinishReason.LENGTH


async def test_an_answer_ends_when_the_context_is_full(bench: Bench) -> None:
    """Windows and states would go on for ever; the context that was asked for is kept to all the same."""
    seen = await bench.run("a", replace(SPEC, prompt=LONG * 8, max_tokens=None))
    assert seen.end is not None
    assert seen.finish is FinishReason.CONTEXT_FULL
    assert seen.end.tokens_in + seen.end.tokens_out == CONTEXT
    assert seen.end.tokens_in > 10 * WINDOW


async def test_a_resumed_run_says_what_it_would_have_said(bench: Bench) -> None:
    greedy = replace(SPEC, deterministic=True)
    sampled = replace(greedy, sampling=Sampling())
    for name, spec in (("greedy", greedy), ("sampled", sampled)):
        whole = await bench.run(f"whole-{name}", spec)
        prefix = whole.log[:5]
        resumed = await bench.run(f"resumed-{name}", spec, prefix)
        assert resumed.token_ids == whole.token_ids[sum(len(entry.token_ids) for entry in prefix) :]


async def test_choices_share_a_prompt(bench: Bench) -> None:
    if not bench.engine.info().capabilities.multiple_choices:
        pytest.skip("this model has one choice at a time")
    seen = await bench.run("a", replace(SPEC, sampling=Sampling(), choices=SLOTS))
    assert seen.end is not None
    assert [choice.finish_reason for choice in seen.end.choices] == [FinishReason.LENGTH] * SLOTS
    assert len({tuple(seen.choice_ids(number)) for number in range(SLOTS)}) == SLOTS


async def test_a_conversation_is_answered(bench: Bench) -> None:
    seen = await bench.run("a", replace(SPEC, prompt="", messages=(Message(Role.USER, "hello <|im_end|> world"),)))
    assert len(seen.token_ids) == 12


@pytest.mark.req("WORK-3005")
async def test_choices_share_one_evaluation_of_the_prompt(bench: Bench) -> None:
    spec = replace(SPEC, prompt=LONG, deterministic=True)
    alone = await bench.run("a", spec)
    before = bench.engine.stats().tokens_prefilled
    seen = await bench.run("b", replace(spec, choices=SLOTS))
    assert seen.end is not None
    assert bench.engine.stats().tokens_prefilled - before == seen.end.tokens_in - seen.end.cached_tokens
    for number in range(SLOTS):
        ids = [token_id for entry in seen.log if entry.choice == number for token_id in entry.token_ids]
        assert ids == alone.token_ids
