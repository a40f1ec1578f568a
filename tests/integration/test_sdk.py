"""The SDK against a real orchestrator: what only the fields of messages say elsewhere, here has its effect."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llama_orch.v2 import task_pb2, worker_pb2
from llorch import AsyncClient, Client, Embeddings
from llorch.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from llorch.sdk.events import FinishReason
from support.whole_system import WholeSystem, ranker, wait_until
from worker_orcd.engines.sim.tokens import sim_embedding, sim_text


@pytest.fixture
async def client(system: WholeSystem) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(system.address) as client:
        yield client


async def test_an_answer_comes_whole_with_every_choice(client: AsyncClient) -> None:
    answer = await client.generate("sim", "Hi", max_tokens=10, n=2, seed=7).answer()

    assert [choice.text for choice in answer.choices] == [sim_text(7, 0, 10), sim_text(7, 1, 10)]
    assert answer.finish_reason is FinishReason.LENGTH
    assert [choice.end.tokens_out for choice in answer.choices] == [10, 10]
    assert answer.placed is not None
    assert answer.placed.simulated


async def test_deterministic_tasks_have_a_receipt(client: AsyncClient) -> None:
    answers = [await client.generate("sim", "Hi", max_tokens=5, seed=7, deterministic=True).answer() for _ in range(2)]

    assert answers[0].end.receipt is not None
    assert answers[0].end.receipt == answers[1].end.receipt


async def test_wishes_about_the_place_are_heard(client: AsyncClient) -> None:
    there = await client.generate("sim", "Hi", max_tokens=2, placement={"pin": "garage/3090"}).answer()
    assert there.placed is not None
    assert there.placed.devices[0].name == "RTX 3090"

    explained = await client.explain("sim", placement={"avoid": ["garage/3090"]})
    assert "RTX 3090" in explained.summary
    with pytest.raises(NotFound, match="attic"):
        await client.generate("sim", "Hi", placement={"pin": "attic"}).answer()


async def test_a_session_keeps_its_budget(client: AsyncClient) -> None:
    await client.generate("sim", "Hi", max_tokens=2, session_id="s1", session_budget={"turns": 1}).answer()

    with pytest.raises(ResourceExhausted):
        await client.generate("sim", "Hi", max_tokens=2, session_id="s1").answer()
    session = await client.session("s1")
    assert (session.turns, session.budget.turns) == (1, 1)
    assert [one.session_id for one in await client.sessions()] == ["s1"]
    await client.delete_session("s1")
    with pytest.raises(NotFound):
        await client.session("s1")


async def test_texts_become_vectors(client: AsyncClient) -> None:
    made = await client.embed("sim", ["one", "two"], request_id="r1")

    assert [list(vector) for vector in made.vectors] == [
        pytest.approx(sim_embedding("one")),
        pytest.approx(sim_embedding("two")),
    ]
    assert made.tokens_in == 2
    assert (await client.task(made.task_id)).state == task_pb2.TASK_STATE_COMPLETED
    assert await client.embed("sim", ["one", "two"], request_id="r1") == made


async def test_documents_are_ordered(client: AsyncClient, system: WholeSystem, tmp_path: Path) -> None:
    await system.register("ranker", f"file:{ranker(tmp_path)}")
    found = await client.rerank("ranker", "blue fish", ["red", "blue fish", "a fish"], top_n=2)
    assert [(document.index, document.score) for document in found.documents] == [(1, 1.0), (2, 0.5)]
    assert found.tokens_in > 0


async def test_a_deadline_that_passed_is_no_orchestrator_that_is_gone(client: AsyncClient) -> None:
    with pytest.raises(DeadlineExceeded, match="deadline") as passed:
        await client.embed("sim", "x" * 30_000, deadline_ms=1)
    assert passed.value.__cause__ is not passed.value


async def test_what_no_engine_takes_is_refused_by_name(client: AsyncClient) -> None:
    with pytest.raises(InvalidArgument, match="image"):
        await client.generate(
            "sim", [{"role": "user", "content": [{"image": {"media_type": "image/png", "data": b"x"}}]}]
        ).answer()
    with pytest.raises(InvalidArgument, match="adapters"):
        await client.generate("sim", "Hi", adapters="lora").answer()
    with pytest.raises(InvalidArgument, match="temperature"):
        await client.generate("sim", "Hi", temperature=1000).answer()


async def test_workers_are_started_and_stopped(client: AsyncClient) -> None:
    worker_id = await client.start_worker("sim", "garage")

    async def is_ready() -> bool:
        workers = (await client.state()).workers
        return any(one.spec.worker_id == worker_id and one.state == worker_pb2.WORKER_STATE_READY for one in workers)

    await wait_until(is_ready)
    (model,) = await client.availability()
    assert (model.model, list(model.ready_worker_ids)) == ("sim", [worker_id])
    await client.stop_worker(worker_id)

    async def is_gone() -> bool:
        return not (await client.availability())[0].ready_worker_ids

    await wait_until(is_gone)


async def test_nodes_and_pools_are_shown(client: AsyncClient) -> None:
    (node,) = await client.nodes()

    assert (await client.node("garage")).node_id == node.node_id == "garage"
    assert (await client.pool_health(node.pools[0].pool_id)).live
    with pytest.raises(FailedPrecondition, match="garage"):
        await client.deregister_node("garage")


async def test_the_orchestrator_tells_of_itself(client: AsyncClient) -> None:
    assert (await client.capabilities()).priorities[0] == "interactive"
    assert "# TYPE llorch_" in await client.metrics()
    assert len(await client.audit()) == 1
    assert await client.audit(most=0) == []


async def test_a_program_without_an_event_loop_does_the_same(system: WholeSystem) -> None:
    def use() -> tuple[str, Embeddings]:
        with Client(system.address) as client:
            return client.generate("sim", "Hi", max_tokens=5, seed=7).answer().text, client.embed("sim", "one")

    text, made = await asyncio.to_thread(use)
    assert text == sim_text(7, 0, 5)
    assert list(made.vectors[0]) == pytest.approx(sim_embedding("one"))
