"""Texts go in, vectors come out: over gRPC and HTTP, through the queue like any other task."""

import asyncio
from typing import Any

import pytest

from llama_orch.v2 import task_pb2, task_service_pb2
from llorch.errors import InvalidArgument, NotFound, Reason
from llorch.rpc.client import call
from support.whole_system import CALL_S, WholeSystem, task, wait_until
from worker_orcd.engines.sim.tokens import sim_embedding


def embed_task(*inputs: str, model: str = "sim", **options: Any) -> task_pb2.TaskSpec:
    return task_pb2.TaskSpec(model=model, embed=task_pb2.EmbedWork(inputs=inputs), **options)


async def embed(system: WholeSystem, spec: task_pb2.TaskSpec) -> task_service_pb2.EmbedResponse:
    return await call(system.tasks.Embed, task_service_pb2.EmbedRequest(task=spec), timeout_s=CALL_S)


@pytest.mark.req("WORK-3007")
async def test_vectors_come_in_the_order_of_their_texts(system: WholeSystem) -> None:
    answer = await embed(system, embed_task("one", "two"))
    assert [list(vector.values) for vector in answer.embeddings] == [
        pytest.approx(sim_embedding("one")),
        pytest.approx(sim_embedding("two")),
    ]
    assert answer.tokens_in == 2
    shown = await system.task(answer.task_id)
    assert (shown.state, shown.durable) == (task_pb2.TASK_STATE_COMPLETED, False)


async def test_the_gateway_takes_it_as_json(system: WholeSystem) -> None:
    answer = await system.http.post("/v2/embed", json={"model": "sim", "embed": {"inputs": ["one"]}})
    assert answer.status_code == 200
    assert answer.json()["embeddings"][0]["values"] == pytest.approx(sim_embedding("one"))


async def test_embeddings_wait_in_the_queue_like_other_tasks(system: WholeSystem) -> None:
    running = [asyncio.ensure_future(system.generate(task(max_tokens=100))) for _ in range(4)]

    async def is_full() -> bool:
        return (await system.state()).tasks_running == 4

    await wait_until(is_full)
    answers = await asyncio.gather(*(embed(system, embed_task(f"text {number}")) for number in range(6)))
    assert [list(answer.embeddings[0].values) for answer in answers] == [
        pytest.approx(sim_embedding(f"text {number}")) for number in range(6)
    ]
    await asyncio.gather(*running)


async def test_the_same_request_id_is_answered_again_without_computing(system: WholeSystem) -> None:
    first = await embed(system, embed_task("one", request_id="r1"))
    again = await embed(system, embed_task("one", request_id="r1"))
    assert first == again


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (embed_task(), "embed.inputs"),
        (embed_task("x", ""), r"embed.inputs\[1\]"),
        (embed_task(*["x"] * 257), "257"),
        (embed_task("x" * 140_000), r"35000 tokens, and at most 8192"),
        (task("x"), "Generate and SubmitTask"),
    ],
)
async def test_what_can_not_be_embedded_is_refused_by_name(
    system: WholeSystem, spec: task_pb2.TaskSpec, named: str
) -> None:
    with pytest.raises(InvalidArgument, match=named):
        await embed(system, spec)


async def test_an_unknown_model_is_not_found(system: WholeSystem) -> None:
    with pytest.raises(NotFound) as refused:
        await embed(system, embed_task("x", model="none"))
    assert refused.value.reason is Reason.MODEL_NOT_FOUND


async def test_embeddings_are_not_asked_for_with_generate(system: WholeSystem) -> None:
    with pytest.raises(InvalidArgument, match="Embed, which answers with them"):
        await system.generate(embed_task("x"))
