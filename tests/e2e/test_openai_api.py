"""OpenAI's API with a real model: SmolLM2 through `llorch up --cpu`, asked by the official client."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from support.openai_client import openai_client
from support.up import running_up

pytestmark = [pytest.mark.native, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

QUESTION = "Name three colours."
REPEATABLE = {"deterministic": True, "ignore_eos": True}
"""In `extra_body`: the same answer each time, as long as it may be."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """One system for all of these tests: a model takes its time to load."""
    folder: Path = tmp_path_factory.mktemp("up")
    async with running_up(folder, "--cpu") as up:
        await up.ready()
        yield (await up.read_until(r"HTTP +(\S+)")).group(1)
        up.process.terminate()
        await up.end()


@pytest_asyncio.fixture(loop_scope="module")
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai_client(url) as client:
        yield client


async def chat(client: openai.AsyncOpenAI, question: str = QUESTION, **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": question}]
    chosen = {"max_tokens": 24, "temperature": 0, **options}
    return await client.chat.completions.create(model="smollm2", messages=messages, **chosen)


async def where_supported(asked: Any) -> Any:
    """The answer. Skips the test where this engine refuses what was asked, which it does by name."""
    try:
        return await asked
    except openai.BadRequestError as error:
        if error.code != "unsupported_option":
            raise
        pytest.skip(f"the engine refuses it: {error.message}")


@pytest.mark.req("GATE-4003")
async def test_chat_whole_and_streamed(client: openai.AsyncOpenAI) -> None:
    answer = await chat(client, extra_body=REPEATABLE)
    said = answer.choices[0].message.content
    assert said
    assert answer.system_fingerprint.startswith("llama_cpp-")
    assert answer.system_fingerprint.endswith("-cpu"), "an answer of the CPU is marked"
    assert 0 < answer.usage.completion_tokens <= 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert 0 <= answer.usage.prompt_tokens_details.cached_tokens < answer.usage.prompt_tokens
    stream = await chat(client, stream=True, stream_options={"include_usage": True}, extra_body=REPEATABLE)
    *chunks, last = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said
    assert chunks[-1].choices[0].finish_reason == answer.choices[0].finish_reason
    assert last.usage.completion_tokens == answer.usage.completion_tokens


async def test_a_seed_gives_the_same_text_twice(client: openai.AsyncOpenAI) -> None:
    options: Any = {"temperature": 2.0, "extra_body": REPEATABLE}
    said = [(await chat(client, seed=seed, **options)).choices[0].message.content for seed in (5, 5, 6)]
    assert said[0] == said[1] != said[2]


async def test_a_completion_goes_on_with_the_prompt(client: openai.AsyncOpenAI) -> None:
    ask: Any = {"model": "smollm2", "prompt": "One, two, three,", "max_tokens": 6, "temperature": 0}
    ask["extra_body"] = REPEATABLE
    answer = await client.completions.create(**ask)
    assert answer.choices[0].text
    assert answer.usage.completion_tokens == 6
    stream = await client.completions.create(**ask, stream=True)
    pieces = [choice.text async for chunk in stream for choice in chunk.choices]
    assert "".join(pieces) == answer.choices[0].text


async def test_the_answer_ends_before_a_stop_string(client: openai.AsyncOpenAI) -> None:
    whole = (await chat(client, extra_body=REPEATABLE)).choices[0].message.content
    stop = whole[len(whole) // 2 :][:3]
    choice = (await chat(client, stop=[stop], extra_body=REPEATABLE)).choices[0]
    assert (choice.message.content, choice.finish_reason) == (whole.partition(stop)[0], "stop")


async def test_several_choices(client: openai.AsyncOpenAI) -> None:
    answer = await where_supported(chat(client, n=2, temperature=2.0, seed=5, extra_body=REPEATABLE))
    first, second = (choice.message.content for choice in answer.choices)
    assert first
    assert second
    assert first != second


async def test_log_probabilities(client: openai.AsyncOpenAI) -> None:
    answer = await where_supported(chat(client, logprobs=True, top_logprobs=2))
    positions = answer.choices[0].logprobs.content
    assert len(positions) == answer.usage.completion_tokens
    assert all(len(each.top_logprobs) == 2 and each.logprob <= 0 for each in positions)
    assert all(each.top_logprobs[0].token == each.token for each in positions), "temperature 0 takes the likeliest"
    said = b"".join(bytes(each.bytes) for each in positions).decode()
    assert said.startswith(answer.choices[0].message.content)


async def test_an_answer_follows_a_json_schema(client: openai.AsyncOpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green"]}, "shade": {"enum": ["light", "dark"]}},
        "required": ["colour", "shade"],
        "additionalProperties": False,
        "x-guidance": {"whitespace_flexible": False},  # blanks without end would take all of the tokens
    }
    described = {"type": "json_schema", "json_schema": {"name": "colour", "schema": schema, "strict": True}}
    asked = chat(client, "A colour as JSON.", response_format=described, max_tokens=60)
    answer = json.loads((await where_supported(asked)).choices[0].message.content)
    assert answer.keys() == {"colour", "shade"}
    assert answer["colour"] in ("red", "green")


async def test_tools_can_be_offered(client: openai.AsyncOpenAI) -> None:
    """A model this small may call one or not; either way the answer has the form that clients expect."""
    asked = chat(client, "What is the weather in Rome? Use the tool.", tools=[WEATHER], max_tokens=48)
    choice = (await where_supported(asked)).choices[0]
    if choice.finish_reason == "tool_calls":
        assert {call.function.name for call in choice.message.tool_calls} == {"get_weather"}
    else:
        assert choice.message.content


async def test_models(client: openai.AsyncOpenAI) -> None:
    assert "smollm2" in [model.id async for model in client.models.list()]


async def test_errors_are_the_clients_own(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="smol", messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(openai.BadRequestError) as caught:
        await chat(client, "word " * 20_000)
    assert caught.value.code == "context_length_exceeded"


SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What the model's template puts first where a conversation has no such message."""


async def test_an_answer_that_was_cut_short_goes_on_where_it_ended(client: openai.AsyncOpenAI) -> None:
    so_far = "1. Red: This is the most obvious"
    messages: Any = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": so_far}]
    turns = (("system", SYSTEM), ("user", QUESTION))
    by_hand = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
    by_hand += f"<|im_start|>assistant\n{so_far}"
    going_on = {"continue_final_message": True, "add_generation_prompt": False}
    rest: Any = await client.chat.completions.create(
        model="smollm2", messages=messages, max_tokens=4, temperature=0, extra_body={**REPEATABLE, **going_on}
    )
    plain: Any = await client.completions.create(
        model="smollm2", prompt=by_hand, max_tokens=4, temperature=0, extra_body={**REPEATABLE, "control_tokens": True}
    )
    assert rest.choices[0].message.content == plain.choices[0].text
    assert rest.usage.prompt_tokens == plain.usage.prompt_tokens
    with pytest.raises(openai.BadRequestError, match="the last message has to be the assistant's"):
        await chat(client, extra_body={"continue_final_message": True})
