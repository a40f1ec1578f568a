"""A node as large as homelabs get: 8 GPUs and 16 workers, at one moment after the other."""

from datetime import UTC, datetime
from functools import cache

from llama_orch.v2 import engine_pb2, worker_pb2
from llorch.device_kind import DeviceKind
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from pool_managerd.devices.device import Device, DeviceProcess
from pool_managerd.node_state import NodeState, Pool
from pool_managerd.workers.status import WorkerStatus

GPUS = 8
WORKERS = 16


def large_node(second: int, *, busy_workers: int = 2) -> NodeState:
    """Every GPU is a little warmer or cooler than a second ago; of the workers, `busy_workers` do something."""
    pids = {f"w-{number}": 4000 + number for number in range(WORKERS)}
    return NodeState(
        devices=tuple(_device(index, second, pids) for index in range(GPUS)),
        pools=(Pool("garage", tuple(_gpu(index) for index in range(GPUS))),),
        workers=tuple(_worker(number, second if number < busy_workers else 0) for number in range(WORKERS)),
    )


def _gpu(index: int) -> str:
    return f"GPU-8f1c2d3e-1b2a-4c3d-8e9f-00000000000{index}"


def _device(index: int, second: int, pids: dict[str, int]) -> Device:
    own = [f"w-{number}" for number in range(WORKERS) if number % GPUS == index]
    return Device(
        device_id=_gpu(index),
        kind=DeviceKind.CUDA,
        index=index,
        name="RTX 3090",
        memory_total_mib=24576,
        memory_used_mib=19000,
        used_by_others_mib=1000,
        utilisation_percent=(40 + second * 7 + index) % 100,
        temperature_c=60 + (second + index) % 5,
        power_w=250 + (second * 3 + index) % 17,
        compute_capability="8.6",
        driver_version="570.124.06",
        processes=tuple(DeviceProcess(pids[worker_id], "worker-orcd", 9000, worker_id) for worker_id in own),
    )


@cache
def _worker(number: int, second: int) -> WorkerStatus:
    """A status that did not change is the same object, as it is in life."""
    return WorkerStatus(
        spec=WorkerSpec(
            worker_id=f"w-{number}",
            model="qwen2.5-coder-7b",
            source="file:/srv/models/qwen2.5-coder-7b-instruct-q4_k_m.gguf",
            device_ids=(_gpu(number % GPUS),),
            slots=4,
            context_per_slot=32768,
            reservation_mib=(9000,),
        ),
        state=WorkerState.READY,
        start_time=datetime(2026, 1, 1, tzinfo=UTC),
        pid=4000 + number,
        address=f"192.168.1.20:{9300 + number}",
        access_token="x" * 43,
        engine=_ENGINE,
        memory_mib=(9000,),
        ready_time=datetime(2026, 1, 1, tzinfo=UTC),
        stats=_stats(second),
    )


def _stats(second: int) -> bytes:
    return worker_pb2.WorkerStats(
        slots_busy=second % 4,
        runs_kept=2,
        steps=1000 + 40 * second,
        tokens_generated=4000 + 160 * second,
        tokens_prefilled=90000 + 500 * second,
        tokens_per_second=160.0 + second % 3,
        kv_used_tokens=9000 + second,
        rss_mib=900,
    ).SerializeToString(deterministic=True)


_ENGINE = engine_pb2.EngineInfo(
    engine="llama_cpp",
    engine_version="0.3.36 (llama.cpp b6000, CUDA 12.8)",
    model="qwen2.5-coder-7b",
    capabilities=engine_pb2.EngineCapabilities(
        resume=engine_pb2.RESUME_SUPPORT_EXACT_IDS,
        deterministic=True,
        logprobs=True,
        grammar=True,
        json_schema=True,
        tools=True,
        chat=True,
        multiple_choices=True,
        sampling_options=["temperature", "top_k", "top_p", "min_p", "seed", "repeat_penalty", "mirostat", "dry"],
    ),
    fingerprint=engine_pb2.EngineFingerprint(
        engine_version="0.3.36",
        build="cuda-12.8-sm86",
        device_kind="cuda",
        device="RTX 3090",
        model_digest="0" * 64,
        context_per_slot=32768,
    ),
    context_trained=131072,
    context_per_slot=32768,
    slots=4,
    max_admitted=4,
    vocabulary_size=152064,
    load_ms=4000,
    memory_mib=[9000],
    protocol_min=1,
    protocol_max=1,
).SerializeToString()
