"""The tables on a terminal of 80 columns: no line is longer, no figure is cut, nothing that matters is left out."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llama_orch.v2 import device_pb2, fleet_service_pb2, model_pb2, node_pb2, task_pb2, worker_pb2
from llorch.cli import output
from support.fake_orchestrator import FakeOrchestrator, smollm2

Llorch = Callable[..., Awaitable[Any]]

WIDTH = 80
WAITS = "talker waits until qwen2.5-coder-32b-instruct-q4_k_m has left the memory of workstation/RTX 3090"
FELT = "slowed down by heat and power, 2 memory errors, 1.0 GiB kept free by its owner, 0.5 GiB on the way back"
HELD = "others: ollama (pid 811) 1.8 GiB + Xorg (pid 1201) 0.2 GiB"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "terminal_width", lambda: WIDTH)


def gpu(index: int, name: str, **facts: Any) -> device_pb2.Device:
    known = {
        "device_id": f"GPU-{index}",
        "kind": device_pb2.DEVICE_KIND_CUDA,
        "state": device_pb2.DEVICE_STATE_OK,
        "memory_total_mib": 24576,
        "memory_used_mib": 20480,
        "memory_others_mib": 2048,
        "utilization_percent": 100,
        "temperature_c": 83,
        "power_w": 348,
    }
    return device_pb2.Device(index=index, name=name, **{**known, **facts})


def worker(worker_id: str, model: str, device_ids: list[str], **facts: Any) -> worker_pb2.Worker:
    spec = worker_pb2.WorkerSpec(
        worker_id=worker_id,
        model=model,
        device_ids=device_ids,
        slots=4,
        context_per_slot=8192,
        reservation_mib=[14541, 8090][: len(device_ids)],
    )
    known: dict[str, Any] = {"node_id": "workstation", "state": worker_pb2.WORKER_STATE_READY}
    return worker_pb2.Worker(spec=spec, **{**known, **facts})


@pytest.fixture
def busy(fake: FakeOrchestrator) -> FakeOrchestrator:
    """A machine of which there is much to tell."""
    programs = [
        device_pb2.DeviceProcess(pid=811, name="ollama", memory_mib=1800),
        device_pb2.DeviceProcess(pid=1201, name="Xorg", memory_mib=180),
        device_pb2.DeviceProcess(pid=1202, name="tiny", memory_mib=2),
        device_pb2.DeviceProcess(pid=4711, name="python3", memory_mib=9000, worker_id="worker-1"),
    ]
    hot = gpu(
        0,
        "RTX 3090",
        throttled=True,
        throttle_reasons=[device_pb2.THROTTLE_REASON_HEAT, device_pb2.THROTTLE_REASON_POWER],
        processes=programs,
        ecc_errors=2,
        reserve_mib=1024,
    )
    lost = gpu(1, "RTX 4000 SFF Ada Generation", state=device_pb2.DEVICE_STATE_LOST)
    lent = gpu(2, "RTX 3060", state=device_pb2.DEVICE_STATE_RELEASED)
    devices = [
        fleet_service_pb2.DeviceLedger(device=device, node_id="workstation", reserved_mib=9216, available_mib=12288)
        for device in (hot, lost, lent)
    ]
    devices[0].returning_mib = 512
    devices[2].release_end_time.FromDatetime(datetime.now(UTC) + timedelta(days=3))
    fake.state = fleet_service_pb2.State(
        nodes=[node_pb2.Node(node_id="workstation", state=node_pb2.NODE_STATE_READY)],
        devices=devices,
        workers=[
            worker(
                "worker-06gvtsg3u6nhna7rm46mrl4900",
                "qwen2.5-coder-32b-instruct-q4_k_m",
                ["GPU-0", "GPU-2"],
                stats=worker_pb2.WorkerStats(slots_busy=4, tokens_per_second=1041.5),
            ),
            worker(
                "worker-06gvtsg3u6nhna7rm46mrl4911",
                "smollm2",
                ["GPU-0"],
                state=worker_pb2.WORKER_STATE_STARTING,
                load_progress=0.42,
            ),
        ],
        loads=[
            fleet_service_pb2.LoadState(
                worker_id="worker-06gvtsg3u6nhna7rm46mrl4922",
                model="talker",
                phase=fleet_service_pb2.LOAD_PHASE_MAKING_ROOM,
                node_id="workstation",
                message=WAITS,
            ),
            fleet_service_pb2.LoadState(worker_id="worker-06gvtsg3u6nhna7rm46mrl4911", model="smollm2"),
        ],
        load_failures=[
            fleet_service_pb2.LoadFailure(
                model="broken",
                node_id="workstation",
                worker_id="worker-9",
                message="the engine can't load the model: the file has an architecture that llama.cpp does not know "
                "yet, which a newer llama-cpp-python may",
            )
        ],
    )
    fake.models = [model_pb2.Model(spec=model_pb2.ModelSpec(name="qwen2.5-coder-32b-instruct-q4_k_m"), context=32768)]
    return fake


def joined(text: str) -> str:
    return " ".join(text.split())


async def test_gpus_tells_all_at_80_columns(llorch: Llorch, busy: FakeOrchestrator, terminal: None) -> None:
    out = (await llorch("gpus")).out

    assert max(map(len, out.splitlines())) <= WIDTH
    header, hot, *_ = out.splitlines()
    assert header.split()[:-3] == ["PLACE", "DEVICE", "GiB", "USED", "OTHERS", "RESERVED", "FREE"]
    assert hot.split()[-8:] == ["24.0", "20.0", "2.0", "9.0", "12.0", "100%", "83°C", "348W"]
    for note in (f"{FELT}, {HELD}", "lost", "released until 20"):
        assert note in joined(out)
    assert "tiny" not in out


async def test_gpus_in_a_pipe_has_one_whole_line_per_device(llorch: Llorch, busy: FakeOrchestrator) -> None:
    _, hot, lost, lent = (await llorch("gpus")).out.splitlines()

    assert hot.startswith("workstation/0")
    assert hot.endswith(HELD)
    assert "RTX 4000 SFF Ada Generation" in lost
    assert lent.startswith("workstation/2")


async def test_ps_tells_all_at_80_columns(llorch: Llorch, busy: FakeOrchestrator, terminal: None) -> None:
    busy.running = [
        task_pb2.Task(
            task_id="task-06gvtsg3u6nhna7rm46mrl4900",
            model="qwen2.5-coder-32b-instruct-q4_k_m",
            state=task_pb2.TASK_STATE_RUNNING,
            tokens_out=12345,
        )
    ]
    result = await llorch("ps")

    assert max(map(len, (result.out + result.err).splitlines())) <= WIDTH
    lines = [line for line in result.out.splitlines() if not line.startswith(" ")]
    assert lines[0].split() == ["MODEL", "STATE", "BUSY", "TOKENS/S", "CONTEXT", "WHERE", "WORKER"]
    assert lines[1].split()[1:5] == ["ready", "4/4", "1041.5", "8192"]
    assert [line.split()[-1] for line in lines[1:4]] == ["rl4900", "rl4911", "rl4922"]
    assert "starting 42%" in lines[2]
    assert "making room" in lines[3]
    assert lines[5].split()[0] == "task-06gvtsg3u6nhna7rm46mrl4900"
    for note in (
        "14.2 GiB of RTX 3090 + 7.9 GiB of RTX 3060, context lowered from 32768, which does not fit",
        WAITS,
    ):
        assert note in joined(result.out)
    assert joined(result.err).startswith("broken could not be loaded on workstation: the engine can't load the model")
    assert joined(result.err).endswith("`llorch logs broken` shows its log.")


async def test_models_reads_at_80_columns(llorch: Llorch, fake: FakeOrchestrator, terminal: None) -> None:
    long = model_pb2.Model(
        spec=model_pb2.ModelSpec(
            name="qwen2.5-coder-32b-instruct-q4_k_m",
            source="hf:Qwen/Qwen2.5-Coder-32B-Instruct-GGUF/qwen2.5-coder-32b-instruct-q4_k_m-00001-of-00005.gguf",
        ),
        state=model_pb2.MODEL_STATE_ACTIVE,
        size_mib=19034,
        context=32768,
    )
    fake.models = [smollm2(), long]

    out = (await llorch("models")).out

    assert max(map(len, out.splitlines())) <= WIDTH
    lines = [line for line in out.splitlines() if not line.startswith(" ")]
    assert len(lines) == 3
    assert lines[2].split()[-3:] == ["19034", "32768", "active"]
    assert "q4_k_m-00001-of-00005.gguf" in out.replace("\n    ", "")


async def test_doctor_reads_at_80_columns(llorch: Llorch, terminal: None) -> None:
    out = (await llorch("doctor", "--simulate-gpu", "RTX 3090:24GiB", "--http", "127.0.0.1:9")).out

    assert max(map(len, out.splitlines())) <= WIDTH


@pytest.mark.parametrize("command", ["drain", "reload", "purge"])
async def test_what_a_pool_waits_for_reads_at_80_columns(
    llorch: Llorch, fake: FakeOrchestrator, terminal: None, command: str
) -> None:
    blocker = fleet_service_pb2.DrainBlocker(message="qwen2.5-coder-32b-instruct-q4_k_m still runs 4 tasks")
    fake.pool_blockers = [blocker]

    err = (await llorch("pool", command, "garage")).err

    assert max(map(len, err.splitlines())) <= WIDTH
    assert blocker.message in err


async def test_without_a_terminal_a_remark_is_one_line(llorch: Llorch, busy: FakeOrchestrator) -> None:
    (told,) = (await llorch("ps")).err.splitlines()
    assert told.endswith("`llorch logs broken` shows its log.")


async def test_an_idle_worker_has_no_rate(llorch: Llorch, busy: FakeOrchestrator) -> None:
    busy.state.workers[0].stats.Clear()
    assert (await llorch("ps")).out.splitlines()[1].split()[1:5] == ["ready", "0/4", "-", "8192"]
