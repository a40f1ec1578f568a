import asyncio

from llorch import AsyncClient, Client, TokenCount, Tokenized
from support.fake_orchestrator import FakeOrchestrator


async def test_a_count_asks_for_the_task_that_generate_would_submit(
    client: AsyncClient, fake: FakeOrchestrator
) -> None:
    counted = await client.count_tokens("smollm2", "Hi", system="Be brief.", max_tokens=3)
    assert counted == TokenCount(5, 8192)
    assert counted.left == 8187
    await client.generate("smollm2", "Hi", system="Be brief.", max_tokens=3).answer()
    asked, submitted = fake.tasks_seen
    submitted.ClearField("request_id")  # one of its own, so that the call may be repeated
    assert asked == submitted


async def test_nothing_is_left_where_it_does_not_fit_and_unknown_where_the_context_is(
    client: AsyncClient, fake: FakeOrchestrator
) -> None:
    fake.context = 3
    assert (await client.count_tokens("smollm2", "Hi")).left == 0
    fake.context = None
    assert (await client.count_tokens("smollm2", "Hi")).left is None


async def test_texts_to_embed_are_counted(client: AsyncClient, fake: FakeOrchestrator) -> None:
    assert await client.count_embed_tokens("smollm2", ["red", "green"]) == TokenCount(5, None)
    assert fake.tasks_seen[0].embed.inputs == ["red", "green"]


async def test_a_text_is_tokenized_as_a_plain_prompt_unless_told_otherwise(
    client: AsyncClient, fake: FakeOrchestrator
) -> None:
    assert await client.tokenize("smollm2", "Name") == Tokenized((7, 8), ())
    found = await client.tokenize("smollm2", "Name", control_tokens=True, add_special=False, with_pieces=True)
    assert found.pieces == (b"Na", b"me")
    first, second = fake.texts_seen
    assert (first.model, first.text, first.control_tokens, first.add_special) == ("smollm2", "Name", False, True)
    assert (second.control_tokens, second.add_special, second.with_pieces) == (True, False, True)


async def test_the_blocking_client_does_the_same(address: str) -> None:
    def work() -> tuple[int, int, tuple[int, ...]]:
        with Client(address) as client:
            counted = client.count_tokens("smollm2", "Hi").tokens_in
            embedded = client.count_embed_tokens("smollm2", "red").tokens_in
            return counted, embedded, client.tokenize("smollm2", "Name").token_ids

    assert await asyncio.to_thread(work) == (5, 5, (7, 8))
