"""A model leaves its device and comes back, and a conversation of 4,000 tokens goes on: with what its worker saved, and
without.

`make chaos` swaps 20 times with it and 5 times without; the suite a tenth of that, with a conversation half as long.
"""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from llama_orch.v2 import worker_pb2
from llorch.logs import get_logger
from llorch.sdk.async_client import AsyncClient
from llorch.sdk.events import End, Tokens
from support import chaos_count
from support.machines import wait_for
from support.real_model import smollm2
from support.up import running_up

pytestmark = [
    pytest.mark.native,
    pytest.mark.long,
    pytest.mark.timeout(chaos_count.within(1800)),
]

ROUNDS = chaos_count.of(20)
WITHOUT_EACH = 5
"""Of so many rounds one goes on without as well, for it takes half a minute. The very first turn has nothing either."""
MOST_OF_WITHOUT = 0.15
TOKENS, NUMBERS = (4000, 829) if chaos_count.IS_FULL else (2000, 430)
"""Of the conversation at its beginning, and what it counts to: a token is a digit, a comma or a space."""
ANSWER = 24
CONTEXT = 6144
MODEL, OTHER, SESSION = "talk", "other", "conversation"

_log = get_logger("chaos")


@dataclass(frozen=True)
class Turn:
    """`first_token_s` is from the request to the first token."""

    first_token_s: float
    text: str
    tokens_in: int
    cached: int


def counting() -> str:
    """The model has no doubt how it goes on: what is computed at once changes nothing."""
    return "Counting apples: " + "".join(f"{number}, " for number in range(1, NUMBERS + 1)).rstrip()


async def ask(client: AsyncClient, prompt: str, session_id: str) -> Turn:
    began, first = time.monotonic(), 0.0
    text, end = "", None
    stream = client.generate(
        MODEL,
        prompt,
        raw=True,
        max_tokens=ANSWER,
        ignore_eos=True,
        temperature=0.0,
        seed=1,
        session_id=session_id or None,
    )
    async for event in stream:
        if isinstance(event, Tokens):
            first = first or time.monotonic()
            text += event.text
        if isinstance(event, End):
            end = event
    assert end is not None
    return Turn(first - began, text, end.tokens_in, end.cached_tokens)


async def swap(client: AsyncClient) -> None:
    """Another model takes the device, and then the first one again."""
    for leaves, comes in ((MODEL, OTHER), (OTHER, MODEL)):
        await client.unload_model(leaves)
        await wait_for(lambda: has_workers(client, 0), f"{leaves} to be gone")
        await client.load_model(comes)
        await wait_for(lambda: has_workers(client, 1), f"{comes} to be ready")


async def has_workers(client: AsyncClient, count: int) -> bool:
    workers = (await client.state()).workers
    return len(workers) == count and all(worker.state == worker_pb2.WORKER_STATE_READY for worker in workers)


async def reload(client: AsyncClient) -> None:
    """The pool is drained, and the worker started again."""
    (before,) = (await client.state()).workers
    await client.reload_pool(before.node_id)

    async def is_another() -> bool:
        (worker,) = (await client.state()).workers or [before]
        return worker.spec.worker_id != before.spec.worker_id and await has_workers(client, 1)

    await wait_for(is_another, "the pool to be reloaded")


async def are_saved(client: AsyncClient, count: int) -> bool:
    return sum(node.saved_sessions.sequences for node in (await client.state()).nodes) == count


@pytest.mark.req("TEST-7001")
async def test_a_conversation_goes_on_soon_after_its_model_was_swapped_away_and_back(tmp_path: Path) -> None:
    with_saved = []
    async with running_up(tmp_path, "--cpu") as up, AsyncClient(await up.ready()) as client:
        for name in (MODEL, OTHER):
            await client.register_model(name, f"file:{smollm2()}", slots=1, context=CONTEXT)
        await client.load_model(MODEL)
        await wait_for(lambda: has_workers(client, 1), "the model to be ready")
        prompt = counting()
        first = await ask(client, prompt, SESSION)
        assert (first.tokens_in >= TOKENS, first.cached) == (True, 0)
        without = [first]
        for number in range(ROUNDS):
            prompt += first.text
            await swap(client)
            first = await ask(client, prompt, SESSION)
            assert first.cached >= TOKENS
            with_saved.append(first)
            if number % WITHOUT_EACH == 0:
                await swap(client)
                without.append(await ask(client, prompt, ""))
                assert (without[-1].text, without[-1].cached) == (first.text, 0)
        await reload(client)
        assert (await ask(client, prompt, SESSION)).cached >= TOKENS, "a drain leaves it, too"
        await client.unload_model(MODEL)
        await wait_for(lambda: are_saved(client, 1), "the conversation to be saved")
        await client.delete_session(SESSION)
        await wait_for(lambda: are_saved(client, 0), "what was saved to be forgotten")
    ratio = statistics.median(turn.first_token_s for turn in with_saved) / statistics.median(
        turn.first_token_s for turn in without
    )
    _log.info(
        "saved_sessions",
        rounds=ROUNDS,
        tokens=first.tokens_in,
        with_ms=sorted(round(1000 * turn.first_token_s) for turn in with_saved),
        without_ms=sorted(round(1000 * turn.first_token_s) for turn in without),
        ratio=round(ratio, 4),
    )
    assert ratio <= MOST_OF_WITHOUT
