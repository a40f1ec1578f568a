"""A database that holds as much as it may: no more tasks of SubmitTask, and all else goes on."""

from pathlib import Path

import pytest

from llama_orch.v2 import task_pb2, task_service_pb2, task_service_pb2_grpc
from llorch.errors import Reason, ResourceExhausted
from llorch.rpc.client import call, open_channel, open_stream
from support.gguf_writer import smallest_model
from support.machines import machines, wait_for

MIB = 2**20
SLOTS = 20
_CALL_S = 30.0
_SIM = {"decode_tokens_per_s": 1, "prefill_tokens_per_s": 1_000_000_000}
"""What runs goes on running."""


def spec(prompt: str, max_tokens: int) -> task_pb2.TaskSpec:
    return task_pb2.TaskSpec(model="reader", generate=task_pb2.GenerateWork(prompt=prompt, max_tokens=max_tokens))


async def test_a_full_database_refuses_tasks_that_it_would_have_to_keep_and_those_alone(tmp_path: Path) -> None:
    file = tmp_path / "reader.gguf"
    file.write_bytes(smallest_model(context_trained=MIB))
    async with machines(tmp_path, "garage", sim=_SIM, cards=("RTX 3090:24GiB",), database_mib=16) as running:
        async with running.client() as client:
            await client.register_model("reader", f"file:{file}", slots=SLOTS, context=MIB, vram_claim_mib=1000)
        async with open_channel(running.orchestrator.address) as channel:
            tasks = task_service_pb2_grpc.TaskServiceStub(channel)

            async def submit() -> str:
                request = task_service_pb2.SubmitTaskRequest(task=spec("x" * MIB, 600))
                return (await call(tasks.SubmitTask, request, timeout_s=_CALL_S)).task_id

            accepted = [await submit() for _ in range(15)]
            with pytest.raises(ResourceExhausted, match="database is full") as refused:
                await submit()
            assert refused.value.reason is Reason.STORE_FULL
            assert refused.value.retry_after_ms
            asked = task_service_pb2.GenerateRequest(task=spec("hello", 1))
            async with open_stream(tasks.Generate, asked, idle_timeout_s=_CALL_S) as answers:
                events = [answer.event async for answer in answers]
            assert events[-1].end.tokens_out == 1
            async with running.client() as client:
                await client.register_model("other", f"file:{file}", slots=1, vram_claim_mib=1000)
            for task_id in accepted[:2]:
                await call(tasks.CancelTask, task_service_pb2.CancelTaskRequest(task_id=task_id), timeout_s=_CALL_S)

            async def is_accepted() -> bool:
                return bool(await submit())

            await wait_for(is_accepted, "room for a task")
