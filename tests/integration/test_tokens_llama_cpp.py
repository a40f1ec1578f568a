"""With a real engine: what is counted by a model's file is what the task then has, and memory stays as it was."""

from pathlib import Path

import pytest

from llama_orch.v2 import fleet_service_pb2, task_pb2, task_service_pb2, worker_pb2
from llorch.errors import InvalidArgument, Reason
from llorch.rpc.client import call
from support.real_model import smollm2
from support.tiny_models import write_tiny_model
from support.whole_system import CALL_S, WholeSystem, wait_until, whole_system

pytestmark = [pytest.mark.native, pytest.mark.timeout(300)]

ANSWERS_WITHIN_S = 60.0
TOOL_TEMPLATE = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools> answer with <tool_call></tool_call>\n{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    "{% if wordy %} a long answer follows here{% endif %}"
)


def plain(model: str) -> task_pb2.TaskSpec:
    work = task_pb2.GenerateWork(prompt="One, two, <|im_start|> three,", max_tokens=1)
    return task_pb2.TaskSpec(model=model, generate=work)


def chat(model: str, **options: object) -> task_pb2.TaskSpec:
    messages = [
        task_pb2.ChatMessage(role="system", content=[task_pb2.ContentPart(text="Be brief. <|im_end|>")]),
        task_pb2.ChatMessage(role="user", content=[task_pb2.ContentPart(text="Name three"), _colours()]),
    ]
    given = task_pb2.ChatInput(messages=messages, **options)  # type: ignore[arg-type]  # tests name fields
    return task_pb2.TaskSpec(model=model, generate=task_pb2.GenerateWork(chat=given, max_tokens=1))


def _colours() -> task_pb2.ContentPart:
    return task_pb2.ContentPart(text=" colours, 你好.")


def with_tools(model: str, **options: object) -> task_pb2.TaskSpec:
    tools = [task_pb2.ToolDefinition(name="paint", description="Paints.", parameters='{"type": "object"}')]
    return chat(model, tools=tools, **options)


async def count(system: WholeSystem, spec: task_pb2.TaskSpec, *, context: int = 512) -> int:
    request = task_service_pb2.CountTokensRequest(task=spec)
    answer = await call(system.tasks.CountTokens, request, timeout_s=ANSWERS_WITHIN_S)
    assert answer.context == context
    return answer.tokens_in


async def test_what_is_counted_by_the_file_is_what_the_task_has_and_no_worker_comes_or_goes(tmp_path: Path) -> None:
    """The only card is full with the one model that is loaded: to load another would take its place."""
    tools = write_tiny_model(tmp_path, "llama", chat_template=TOOL_TEMPLATE)
    card, engine = ["RTX 3090:24GiB"], "llama_cpp"
    async with whole_system(tmp_path, simulate_gpu=card, simulated_engine=engine, allow_cpu=True, sim="") as system:
        await system.register("kept", f"file:{write_tiny_model(tmp_path, 'gemma2')}", vram_claim_mib=24 * 1024, slots=1)
        await system.register("smol", f"file:{smollm2()}", context=512, slots=1)
        await system.register("tools", f"file:{tools}", context=512, slots=1)
        await call(system.fleet.LoadModel, fleet_service_pb2.LoadModelRequest(model="kept"), timeout_s=CALL_S)
        await wait_until(lambda: _is_loaded(system, "kept"), ANSWERS_WITHIN_S)
        (kept,) = (await system.state()).workers
        specs = [
            plain("smol"),
            chat("smol"),
            plain("tools"),
            chat("tools"),
            with_tools("tools"),
            with_tools("tools", tool_choice="none"),
            chat("tools", template_values='{"wordy": true}'),
        ]
        counted = [await count(system, spec) for spec in specs]
        with pytest.raises(InvalidArgument) as refused:
            await count(system, with_tools("smol"))
        assert refused.value.reason is Reason.UNSUPPORTED_OPTION
        await system.register("all-defaults", f"file:{smollm2()}")
        assert await count(system, plain("all-defaults"), context=8192) == counted[0]
        state = await system.state()
        assert [worker.spec.worker_id for worker in state.workers] == [kept.spec.worker_id]
        assert (len(state.loads), state.tasks_running, [queue.depth for queue in state.queues]) == (0, 0, [0, 0])
        assert counted[4] > counted[3] == counted[5] < counted[6]
        await call(system.fleet.UnloadModel, fleet_service_pb2.UnloadModelRequest(model="kept"), timeout_s=CALL_S)
        for spec, tokens in zip(specs, counted, strict=True):
            events = await system.generate(spec)
            assert events[-1].WhichOneof("event") == "end", events[-1]
            assert events[-1].end.tokens_in == tokens
            assert await count(system, spec) == tokens, "the worker that has it by now says the same"


async def _is_loaded(system: WholeSystem, model: str) -> bool:
    workers = (await system.state()).workers
    return any(worker.spec.model == model and worker.state == worker_pb2.WORKER_STATE_READY for worker in workers)
