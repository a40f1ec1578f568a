"""OpenAI's API judged by its official client, through the whole system with the simulated engine."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from support.openai_client import openai_client
from support.whole_system import CRASH, FAIL, WholeSystem, wait_until, whole_system
from worker_orcd.engines.sim.tokens import sim_prompt_tokens, sim_text

SEED = 7


@pytest.fixture
async def client(system: WholeSystem) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai_client(str(system.http.base_url)) as client:
        yield client


async def chat(client: openai.AsyncOpenAI, prompt: str = "hello", **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": prompt}]
    return await client.chat.completions.create(
        model="sim", messages=messages, **{"seed": SEED, "max_tokens": 8, **options}
    )


@pytest.mark.req("GATE-4003")
async def test_chat(client: openai.AsyncOpenAI) -> None:
    answer = await chat(client)
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content) == ("assistant", sim_text(SEED, 0, 8))
    assert choice.finish_reason == "length"
    assert answer.model == "sim"
    assert answer.system_fingerprint.startswith("sim-")
    assert answer.system_fingerprint.endswith("-simulated")
    used = answer.usage
    assert (used.completion_tokens, used.total_tokens) == (8, used.prompt_tokens + 8)
    assert used.prompt_tokens_details.cached_tokens == 0


@pytest.mark.req("GATE-4003")
async def test_streamed_chat(client: openai.AsyncOpenAI) -> None:
    stream = await chat(client, stream=True, stream_options={"include_usage": True})
    *chunks, last = [chunk async for chunk in stream]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == sim_text(SEED, 0, 8)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "length"
    assert (last.choices, last.usage.completion_tokens) == ([], 8)
    assert len({chunk.id for chunk in [*chunks, last]}) == 1


async def test_the_clients_own_helper_puts_a_stream_together(client: openai.AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": "hello"}]
    whole = sim_text(SEED, 0, 8)
    stop = whole[20:24]
    async with client.chat.completions.stream(model="sim", messages=messages, seed=SEED, stop=stop) as stream:
        answer = await stream.get_final_completion()
    assert answer.choices[0].message.content == whole.partition(stop)[0]


@pytest.mark.req("GATE-4003")
async def test_completions(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model="sim", prompt="hello", seed=SEED, max_tokens=5)
    assert answer.choices[0].text == sim_text(SEED, 0, 5)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == sim_prompt_tokens("hello")
    stream = await client.completions.create(model="sim", prompt="hello", seed=SEED, max_tokens=5, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == sim_text(SEED, 0, 5)


async def test_several_choices(client: openai.AsyncOpenAI) -> None:
    answer = await chat(client, n=3)
    assert [choice.message.content for choice in answer.choices] == [sim_text(SEED, each, 8) for each in range(3)]
    said = ["", "", ""]
    async for chunk in await chat(client, n=3, stream=True):
        said[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert said == [sim_text(SEED, each, 8) for each in range(3)]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_answer_ends_before_a_stop_string(client: openai.AsyncOpenAI, stream: bool) -> None:
    whole = sim_text(SEED, 0, 8)
    stop = whole[20:24]
    answer = await chat(client, stop=stop if stream else ["never said", stop], stream=stream)
    if stream:
        choices = [chunk.choices[0] async for chunk in answer]
        said, finish_reason = "".join(choice.delta.content or "" for choice in choices), choices[-1].finish_reason
    else:
        said, finish_reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert (said, finish_reason) == (whole.partition(stop)[0], "stop")


async def test_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["sim"]
    assert (await client.models.retrieve("sim")).owned_by == "llama-orch"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("other")


async def test_extensions_go_into_the_extra_body(client: openai.AsyncOpenAI) -> None:
    answer = await chat(client, extra_body={"session_id": "s", "deadline_ms": 60_000, "top_k": 5})
    assert answer.choices[0].message.content == sim_text(SEED, 0, 8)


async def test_a_deterministic_answer_has_a_receipt(client: openai.AsyncOpenAI) -> None:
    receipts = [(await chat(client, extra_body={"deterministic": True})).receipt for _ in range(2)]
    assert receipts[0]["token_digest"]
    assert receipts[0] == receipts[1]


@pytest.mark.req("GATE-4003")
async def test_errors_are_the_clients_own(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="smi", messages=[{"role": "user", "content": "hi"}])
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as out_of_range:
        await chat(client, temperature=-1)
    assert out_of_range.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as unsupported:
        await chat(client, logprobs=True)
    assert unsupported.value.code == "unsupported_option"
    assert "logprobs" in unsupported.value.message
    with pytest.raises(openai.BadRequestError) as misspelt:
        await chat(client, extra_body={"min_q": 0.1})
    assert misspelt.value.param == "min_q"


async def test_a_prompt_that_does_not_fit_is_told_by_the_code_that_programs_know(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await chat(client, "word " * 100_000)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("prompt", [FAIL, CRASH])
async def test_what_breaks_in_mid_stream_is_an_exception(client: openai.AsyncOpenAI, prompt: str) -> None:
    stream = await chat(client, prompt, stream=True, max_tokens=50)
    said = ""

    async def read() -> None:
        nonlocal said
        async for chunk in stream:
            said += chunk.choices[0].delta.content or ""

    with pytest.raises(openai.APIError):
        await read()
    assert sim_text(SEED, 0, 50).startswith(said)
    with pytest.raises(openai.InternalServerError):
        await chat(client, prompt, max_tokens=50)


async def _in_states(system: WholeSystem, states: set[str]) -> bool:
    """Whether the tasks are in these, and in no others."""
    answer = await system.http.get("/v2/tasks")
    return {task["state"] for task in answer.json()["tasks"]} == states


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_its_task(
    client: openai.AsyncOpenAI, system: WholeSystem, stream: bool
) -> None:
    async def ask() -> None:
        answer = await chat(client, stream=stream, max_tokens=3_000)
        async for _ in answer:
            pass

    asking = asyncio.create_task(ask())
    await wait_until(lambda: _in_states(system, {"TASK_STATE_RUNNING"}))
    asking.cancel()
    await asyncio.wait({asking})
    await wait_until(lambda: _in_states(system, {"TASK_STATE_CANCELLED"}))


@pytest.mark.req("GATE-4003")
async def test_a_full_queue_is_a_rate_limit(tmp_path: Path) -> None:
    async with (
        whole_system(tmp_path, slots=1, queue_capacity=1) as system,
        openai_client(str(system.http.base_url)) as client,
    ):
        asking = {asyncio.create_task(chat(client, max_tokens=3_000))}
        await wait_until(lambda: _in_states(system, {"TASK_STATE_RUNNING"}))
        asking.add(asyncio.create_task(chat(client)))
        await wait_until(lambda: _in_states(system, {"TASK_STATE_RUNNING", "TASK_STATE_QUEUED"}))
        with pytest.raises(openai.RateLimitError) as caught:
            await chat(client)
        for each in asking:
            each.cancel()
        await asyncio.wait(asking)
    assert caught.value.code == "queue_full"
    assert int(caught.value.response.headers["retry-after"]) >= 1


async def test_many_clients_at_once(client: openai.AsyncOpenAI) -> None:
    answers = await asyncio.gather(*(chat(client, f"number {each}", seed=each) for each in range(16)))
    assert [answer.choices[0].message.content for answer in answers] == [sim_text(each, 0, 8) for each in range(16)]
