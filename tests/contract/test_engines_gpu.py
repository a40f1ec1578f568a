"""The llama.cpp engine on GPUs, where there are any (`make test-gpu`)."""

import asyncio
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace

import pytest

from llorch.device_kind import DeviceKind
from llorch.options.sampling import Sampling
from support.real_model import smollm2
from worker_orcd.device import DeviceSet
from worker_orcd.engines.llama_cpp.engine import LlamaCppEngine
from worker_orcd.engines.llama_cpp.shape import LlamaCppShape
from worker_orcd.engines.protocol import EngineRun
from worker_orcd.log_entry import RunEnd
from worker_orcd.run_spec import RunSpec
from worker_orcd.token_step import TokenStep

pytestmark = [pytest.mark.gpu, pytest.mark.native]

SPEC = RunSpec(prompt="One, two, three, four,", max_tokens=16, sampling=Sampling(temperature=0.0), ignore_eos=True)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The ids of all GPUs, which the engine is shown."""
    if shutil.which("nvidia-smi") is None:
        pytest.skip("no GPU")
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    found = tuple(listed.stdout.split())
    if listed.returncode or not found:
        pytest.skip("no GPU")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(found))
    return found


def shape(gpus: tuple[str, ...]) -> LlamaCppShape:
    return LlamaCppShape(
        model_path=smollm2(),
        model="m",
        devices=DeviceSet(DeviceKind.CUDA, gpus),
        slots=2,
        context_per_slot=512,
        threads=1,
    )


async def answer(shape: LlamaCppShape) -> tuple[list[int], LlamaCppEngine]:
    engine = LlamaCppEngine(shape)
    end: asyncio.Future[RunEnd] = asyncio.get_running_loop().create_future()
    token_ids: list[int] = []

    def on_steps(steps: Sequence[TokenStep]) -> None:
        for step in steps:
            token_ids.extend(token_id for entry in step.entries for token_id in entry.token_ids)
            if step.end is not None:
                end.set_result(step.end)

    engine.deliver_to(on_steps)
    await engine.load()
    try:
        await engine.submit(EngineRun("a", SPEC))
        async with asyncio.timeout(60):
            await end
    finally:
        await engine.close()
    return token_ids, engine


async def test_a_model_on_all_gpus_answers_and_takes_their_memory(gpus: tuple[str, ...]) -> None:
    token_ids, engine = await answer(shape(gpus))
    assert len(token_ids) == 16
    info = engine.info()
    assert (info.cpu, info.fingerprint.device_kind) == (False, "cuda")
    assert len(info.memory_mib) == len(gpus)
    assert sum(info.memory_mib) > 0


async def test_shares_decide_where_a_model_goes(gpus: tuple[str, ...]) -> None:
    if len(gpus) < 2:
        pytest.skip("one GPU")
    first_only = (1.0, *[0.0] * (len(gpus) - 1))
    token_ids, engine = await answer(replace(shape(gpus), tensor_split=first_only))
    assert len(token_ids) == 16
    assert engine.info().memory_mib[0] == max(engine.info().memory_mib)
