"""Documents go in with a query, their order comes out: over gRPC, HTTP and the SDK, through the queue like any task."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from llama_orch.v2 import task_pb2, task_service_pb2
from llorch.errors import InvalidArgument, LlorchError, Reason
from llorch.rpc.client import call
from support.gguf_writer import smallest_ranker
from support.whole_system import CALL_S, WholeSystem, ranker, task
from worker_orcd.engines.sim.tokens import sim_prompt_tokens

DOCUMENTS = ["a red fish", "the blue sky at night", "blue", "a blue fish"]
QUERY = "blue fish"
ORDER = [3, 0, 1, 2]
"""By the share of the query's words; equal ones as they came."""


def rank_task(*documents: str, query: str = QUERY, top_n: int = 0, **options: Any) -> task_pb2.TaskSpec:
    work = task_pb2.RerankWork(query=query, documents=documents, top_n=top_n)
    return task_pb2.TaskSpec(model="ranker", rerank=work, **options)


@pytest.fixture(autouse=True)
async def registered(system: WholeSystem, tmp_path: Path) -> None:
    await system.register("ranker", f"file:{ranker(tmp_path)}")


async def rank(system: WholeSystem, spec: task_pb2.TaskSpec) -> task_service_pb2.RerankResponse:
    return await call(system.tasks.Rerank, task_service_pb2.RerankRequest(task=spec), timeout_s=CALL_S)


@pytest.mark.req("WORK-3007")
async def test_the_best_document_comes_first_and_names_its_place_in_the_request(system: WholeSystem) -> None:
    answer = await rank(system, rank_task(*DOCUMENTS))
    assert [document.index for document in answer.documents] == ORDER
    assert [document.score for document in answer.documents] == [1.0, 0.5, 0.5, 0.5]
    assert answer.tokens_in == sum(sim_prompt_tokens(f"{QUERY} {document}") for document in DOCUMENTS)
    shown = await system.task(answer.task_id)
    assert (shown.state, shown.durable) == (task_pb2.TASK_STATE_COMPLETED, False)


@pytest.mark.parametrize(("top_n", "told"), [(1, 1), (3, 3), (4, 4), (1000, 4), (0, 4)])
async def test_as_many_are_told_as_were_asked_for(system: WholeSystem, top_n: int, told: int) -> None:
    answer = await rank(system, rank_task(*DOCUMENTS, top_n=top_n))
    assert [document.index for document in answer.documents] == ORDER[:told]


async def test_the_gateway_takes_it_as_json(system: WholeSystem) -> None:
    work = {"query": QUERY, "documents": DOCUMENTS, "top_n": 2}
    answer = await system.http.post("/v2/rerank", json={"model": "ranker", "rerank": work})
    assert answer.status_code == 200
    assert answer.json()["documents"] == [{"index": 3, "score": 1.0}, {"index": 0, "score": 0.5}]


async def test_the_same_request_id_is_answered_again_without_computing(system: WholeSystem) -> None:
    first = await rank(system, rank_task(*DOCUMENTS, request_id="r1"))
    assert await rank(system, rank_task(*DOCUMENTS, request_id="r1")) == first


async def test_many_at_once_wait_for_a_slot(system: WholeSystem) -> None:
    answers = await asyncio.gather(*(rank(system, rank_task("x", f"{QUERY} {number}")) for number in range(12)))
    assert [[document.index for document in answer.documents] for answer in answers] == [[1, 0]] * 12


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (rank_task(), r"rerank\.documents: has 0 entries"),
        (rank_task("x", ""), r"rerank\.documents\[1\]"),
        (rank_task("x", query=""), r"rerank\.query"),
        (rank_task(*["x"] * 1025), "1025"),
        (rank_task("x", top_n=1025), r"rerank\.top_n"),
        (rank_task("x", "y" * 140_000), r"documents\[1\] has 350\d\d tokens, and at most 8192"),
        (rank_task(*["x"] * 1024, query="y" * 5000), r"5121024 bytes; at most 4194304"),
        (rank_task("x", deterministic=True), "deterministic: is promised for generated text alone"),
        (task("x"), "Generate and SubmitTask"),
    ],
)
async def test_what_can_not_be_ordered_is_refused_by_name(
    system: WholeSystem, spec: task_pb2.TaskSpec, named: str
) -> None:
    with pytest.raises(InvalidArgument, match=named):
        await rank(system, spec)


async def test_a_model_that_orders_documents_does_nothing_else_once_its_file_is_known(system: WholeSystem) -> None:
    await rank(system, rank_task("x"))
    with pytest.raises(InvalidArgument, match="model 'ranker' takes rerank alone, as its file says"):
        await system.generate(task("x", model="ranker"))


async def test_why_a_task_failed_is_told_to_who_waits_for_its_answer(system: WholeSystem, tmp_path: Path) -> None:
    await system.register("cut", f"file:{ranker(tmp_path, 'cut.gguf')}")
    (tmp_path / "cut.gguf").write_bytes(smallest_ranker()[:-1])
    spec = rank_task("x")
    spec.model = "cut"
    with pytest.raises(LlorchError, match=r"^cut\.gguf is not a model .* may have been cut off \(on garage\)$") as told:
        await rank(system, spec)
    assert told.value.reason is Reason.MODEL_FILE_INVALID


async def test_documents_are_not_ordered_with_generate(system: WholeSystem) -> None:
    with pytest.raises(InvalidArgument, match="Rerank, which answers with their order"):
        await system.generate(rank_task("x"))
