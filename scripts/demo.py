"""What `make demo` runs: a real model answers, over HTTP and over gRPC.

Starts a whole system on free ports with a temporary folder, asks SmolLM2 twice, and ends everything again. Uses a GPU
if there is one; `--cpu` takes the CPU anyway.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llama_orch.v2 import fleet_service_pb2
from llorch import AsyncClient, End, Failed, LlorchError, Placed, Tokens
from llorch.errors import Reason
from llorch.sdk.failures import TaskFailed
from llorch.system.daemon import DaemonFailed
from llorch.system.lifetime import EXIT_INTERRUPTED, with_system
from llorch.system.local_system import LocalSystem
from llorch.system.options import ANY_PORT, CpuUse, SystemOptions

MODEL = "smollm2"
PROMPTS = ("Name three colours of the rainbow.", "Why is the sky blue? Answer in one sentence.")
MAX_TOKENS = 48
TEMPERATURE = 0.0
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Answer:
    """What the table says about one answer; times in milliseconds."""

    way: str
    worker_id: str
    place: str
    engine: str
    tokens_out: int
    queue_ms: int
    first_token_ms: int | None
    decode_time_ms: int

    @property
    def speed(self) -> str:
        """Tokens per second after the first one."""
        return f"{(self.tokens_out - 1) * 1000 / self.decode_time_ms:.1f}" if self.decode_time_ms else "-"


def main() -> int:
    parser = argparse.ArgumentParser(description="Show a real model answering, over HTTP and over gRPC.")
    parser.add_argument("--cpu", action="store_true", help="take the CPU, also where there is a GPU")
    cpu = CpuUse.ALLOWED if parser.parse_args().cpu else CpuUse.IF_NO_GPU
    with tempfile.TemporaryDirectory(prefix="llama-orch-demo-") as folder:
        options = SystemOptions(data_dir=Path(folder), cpu=cpu, http=ANY_PORT, grpc=ANY_PORT, pool_manager=ANY_PORT)
        return run(options)


def run(options: SystemOptions) -> int:
    """The exit code."""
    say(f"Starting a system on this machine, on free ports, with its data in {options.data_dir} …")
    try:
        with_system(options, show_step, demonstrate)
    except KeyboardInterrupt:
        say("Interrupted; nothing was left running.")
        return EXIT_INTERRUPTED
    except DaemonFailed as error:
        for line in error.last_lines:
            complain(f"  {error.name}: {line}")
        complain(f"The demonstration failed: {error.message}")
    except LlorchError as error:
        complain(f"The demonstration failed: {error.message}")
    except httpx.HTTPError as error:
        complain(f"The demonstration failed over HTTP: {error or type(error).__name__}")
    else:
        say("Everything has been ended again. To go on: llorch up --help")
        return 0
    return 1


async def demonstrate(system: LocalSystem, _state: fleet_service_pb2.State) -> None:
    over_http = await ask_over_http(system.http_url, system.http_token, PROMPTS[0])
    async with AsyncClient(system.grpc_address, system.grpc_token) as client:
        over_grpc = await ask_over_grpc(client, PROMPTS[1])
        workers = {worker.spec.worker_id: worker for worker in (await client.state()).workers}
    load_ms = {worker_id: worker.engine.load_ms for worker_id, worker in workers.items()}
    show_table([over_http, over_grpc], load_ms)


async def ask_over_http(url: str, token: str | None, prompt: str) -> Answer:
    """POST /v2/tasks, then the events of the task as SSE."""
    say(f"\nHTTP/SSE  POST /v2/tasks, GET /v2/tasks/…/events  ·  {prompt}\n")
    message = {"role": "user", "content": [{"text": prompt}]}
    sampling = {"temperature": TEMPERATURE}
    generate = {"chat": {"messages": [message]}, "max_tokens": MAX_TOKENS, "sampling": sampling}
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False) as client:
        submitted = await client.post("/v2/tasks", json={"model": MODEL, "generate": generate})
        submitted.raise_for_status()
        placed: dict[str, Any] = {}
        async with client.stream("GET", f"/v2/tasks/{submitted.json()['task_id']}/events") as response:
            response.raise_for_status()
            async for event in server_sent(response):
                match event["type"]:
                    case "placed":
                        placed = event
                    case "token":
                        write(event["t"])
                    case "end":
                        return answer_from_json(placed, event)
                    case "error":
                        raise TaskFailed(Reason.ENGINE_FAILED, event["message"], retryable=False, retry_after_ms=None)
    raise httpx.RemoteProtocolError("the stream ended before the answer did")


async def ask_over_grpc(client: AsyncClient, prompt: str) -> Answer:
    """TaskService/Generate, through the SDK."""
    say(f"\n\ngRPC  TaskService/Generate  ·  {prompt}\n")
    place: Placed | None = None
    async for event in client.generate(MODEL, prompt, max_tokens=MAX_TOKENS, temperature=TEMPERATURE):
        match event:
            case Placed():
                place = event
            case Tokens(text=text):
                write(text)
            case End() if place is not None:
                return Answer(
                    way="gRPC",
                    worker_id=place.worker_id,
                    place=place_of([device.name for device in place.devices], cpu=place.cpu, simulated=place.simulated),
                    engine=f"{place.engine} {place.engine_version}",
                    tokens_out=event.tokens_out,
                    queue_ms=event.queue_ms,
                    first_token_ms=event.first_token_ms,
                    decode_time_ms=event.decode_time_ms,
                )
            case Failed():
                raise TaskFailed(event.reason, event.message, retryable=event.retryable, retry_after_ms=None)
    raise LookupError("the stream ended before the answer did")


async def server_sent(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The data of each event."""
    async for line in response.aiter_lines():
        if line.startswith("data:"):
            yield json.loads(line.removeprefix("data:"))


def answer_from_json(placed: dict[str, Any], end: dict[str, Any]) -> Answer:
    return Answer(
        way="HTTP/SSE",
        worker_id=placed["worker"],
        place=place_of(
            [device["name"] for device in placed["devices"]], cpu=placed["cpu"], simulated=placed["simulated"]
        ),
        engine=f"{placed['engine']} {placed['engine_version']}",
        tokens_out=end["tokens_out"],
        queue_ms=end["queue_ms"],
        first_token_ms=end.get("first_token_ms"),
        decode_time_ms=end["decode_time_ms"],
    )


def place_of(devices: list[str], *, cpu: bool, simulated: bool) -> str:
    marks = [mark for mark, applies in (("cpu", cpu), ("simulated", simulated)) if applies]
    return " + ".join(devices) + "".join(f" [{mark}]" for mark in marks)


def show_table(answers: list[Answer], load_ms: dict[str, int]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("", "load ms", "queue ms", "first token ms", "tokens/s"):
        table.add_column(name, justify="right" if name else "left")
    for name in ("device", "engine"):
        table.add_column(name, overflow="fold")
    for answer in answers:
        # The model is loaded for the first answer; the next one finds it there.
        loaded = load_ms.pop(answer.worker_id, None)
        numbers = (answer.queue_ms, answer.first_token_ms)
        table.add_row(
            answer.way,
            str(loaded) if loaded is not None else "-",
            *map(str, numbers),
            answer.speed,
            Text(answer.place),
            answer.engine,
        )
    say("\n")
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)
    say("")


def show_step(_who: str, what: str) -> None:
    """Shows of the start only which device is used, and that it is being interrupted."""
    if what.startswith(("no GPU", "stops")):
        say(what[0].upper() + what[1:] + ".")


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def say(text: str) -> None:
    print(text, flush=True)


def complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
