"""How fast the llama.cpp engine is, beside llama.cpp's own server core in the same run (`make bench-engine`).

Ratios count, absolute times on a shared machine do not. `--rounds N` repeats every comparison and takes medians;
`--full` takes memory over 2,000 requests instead of 400. The result goes to `bench-results/engine.json` and to the
terminal.
"""

import argparse
import asyncio
import gc
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import psutil
from engine_client import Client, open_client, prompt
from engine_peer import open_peer
from engine_step_cost import measure_step_cost
from rich.console import Console
from rich.table import Table

from llorch.logs import configure_logging
from llorch.options.sampling import Sampling
from worker_orcd.engines.llama_cpp.threads import usable_cores
from worker_orcd.run_spec import RunSpec

RESULTS = Path(__file__).resolve().parents[2] / "bench-results"
GAP_S = 0.2
CONVERSATION = 1490
LONG_PROMPT = 3990
MIB = 1024 * 1024


@dataclass(frozen=True)
class Row:
    """`value` has to be at least or at most the bar."""

    what: str
    value: float
    bar: float
    at_least: bool = False
    detail: str = ""

    @property
    def met(self) -> bool:
        return self.value >= self.bar if self.at_least else self.value <= self.bar


async def compare_speed(rounds: int, max_tokens: int, threads: int) -> list[Row]:
    """Tokens per second with the prompts' evaluation included, one engine after the other, in turns."""
    slots, context = 16, 512
    rows = []
    async with open_client(slots=slots, context=context, threads=threads) as ours:
        with open_peer(Path(ours.engine._shape.model_path), slots=slots, context=context, threads=threads) as peer:
            for sequences in (1, 4, 16):
                own, theirs = [], []
                for number in range(rounds + 1):
                    mine = await ours.tokens_per_s([prompt(24) for _ in range(sequences)], max_tokens)
                    other = await asyncio.to_thread(
                        peer.tokens_per_s, [prompt(24) for _ in range(sequences)], max_tokens
                    )
                    if number:  # the first round warms up
                        own.append(mine)
                        theirs.append(other)
                ratio = statistics.median(a / b for a, b in zip(own, theirs, strict=True))
                detail = f"{statistics.median(own):.0f} / {statistics.median(theirs):.0f} tokens/s"
                rows.append(Row(f"tokens/s at {sequences}, of the server core's", ratio, 1.3, True, detail))
    return rows


def step_cost() -> list[Row]:
    cost = measure_step_cost(16)
    sampling = cost["sampling_us"] / cost["server_sampling_us"]
    detail = f"{cost['sampling_us']:.0f} / {cost['server_sampling_us']:.0f} µs"
    return [
        Row("Python's own time per token at 16, µs", cost["python_us"], 15),
        Row("the same without a model in the caches, µs", cost["warm_python_us"], 15),
        Row("time in sampling, of the server core's chain", sampling, 1.0, detail=detail),
    ]


async def reuse(rounds: int, threads: int) -> list[Row]:
    """Time to the first token of a second turn; and of a conversation that comes back from the host's memory."""
    second, fresh, restored = [], [], []
    async with open_client(slots=1, context=2048, threads=threads, host_mib=256) as client:
        for number in range(rounds):
            first = prompt(CONVERSATION)
            run = await client.ask(f"first-{number}", spec(first, 32))
            fresh.append(run.first_token_s)
            again = await client.ask(f"second-{number}", spec(first + run.text + "\nAnd then?", 2))
            second.append(again.first_token_s)
            await client.ask(f"other-{number}", spec(prompt(64), 2))
            back = await client.ask(f"back-{number}", spec(first, 2))
            restored.append(back.first_token_s)
            assert (await back.end).cached_tokens > 1000
    detail = f"{statistics.median(second) * 1000:.0f} / {statistics.median(fresh) * 1000:.0f} ms"
    back_detail = f"{statistics.median(restored) * 1000:.0f} / {statistics.median(fresh) * 1000:.0f} ms"
    return [
        Row("first token of a second turn, of that without reuse", ratio_of(second, fresh), 0.15, detail=detail),
        Row("first token after a restore, of a prefill", ratio_of(restored, fresh), 0.1, detail=back_detail),
    ]


async def long_prompt(rounds: int, threads: int) -> list[Row]:
    """What a long prompt costs the decoding runs, and how soon a slot is free when it is cancelled."""
    gaps, cancels = [], []
    async with open_client(slots=2, context=4608, threads=threads) as client:
        for number in range(rounds):
            gaps.append(await longest_gap(client, number))
            cancels.append(await cancel_latency(client, number))
    return [
        Row("longest wait for a token beside a long prompt, of 200 ms", statistics.median(gaps) / GAP_S, 1.5),
        Row("cancel in mid-prefill until the slot is free, ms", statistics.median(cancels) * 1000, 250),
    ]


async def longest_gap(client: Client, number: int) -> float:
    stream = await client.submit(f"stream-{number}", spec(prompt(20), None))
    await stream.speaks.wait()
    long = await client.submit(f"long-{number}", spec(prompt(LONG_PROMPT), 2))
    await long.end
    client.engine.cancel(f"stream-{number}")
    await stream.end
    times = [at for at in stream.token_times if long.submitted_at <= at <= long.ended_at]
    return max(after - before for before, after in pairwise(times))


async def cancel_latency(client: Client, number: int) -> float:
    run = await client.submit(f"cancel-{number}", spec(prompt(LONG_PROMPT), 2))
    await run.started.wait()
    await asyncio.sleep(0.7)
    cancelled_at = time.perf_counter()
    client.engine.cancel(f"cancel-{number}")
    await run.end
    return run.ended_at - cancelled_at


async def memory_growth(requests: int, threads: int) -> Row:
    """Resident memory after so many requests of random shape, above that after the first tenth."""
    chance = random.Random(7)  # noqa: S311  no secret
    process = psutil.Process()
    after_tenth = 0
    async with open_client(slots=4, context=512, threads=threads) as client:
        done = 0
        while done < requests:
            batch = [await client.submit(f"m{done + at}", random_spec(chance)) for at in range(4)]
            if chance.random() < 0.2:
                client.engine.cancel(f"m{done}")
            for run in batch:
                await run.end
            done += len(batch)
            if not after_tenth and done >= requests // 10:
                gc.collect()
                after_tenth = process.memory_info().rss
        gc.collect()
        grown = (process.memory_info().rss - after_tenth) / MIB
    return Row(f"memory grown from request {requests // 10} to {requests}, MiB", grown, 16)


def random_spec(chance: random.Random) -> RunSpec:
    sampling = Sampling(temperature=chance.choice((0.0, 0.8)), top_k=chance.choice((0, 40)))
    stop = ("river",) if chance.random() < 0.3 else ()
    text = prompt(chance.randrange(1, 60))
    return RunSpec(
        prompt=text, max_tokens=chance.randrange(1, 12), seed=chance.getrandbits(64), sampling=sampling, stop=stop
    )


def spec(text: str, max_tokens: int | None) -> RunSpec:
    return RunSpec(prompt=text, max_tokens=max_tokens, ignore_eos=True, seed=1)


def ratio_of(ones: list[float], others: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def show(rows: list[Row]) -> None:
    RESULTS.mkdir(exist_ok=True)
    results = [{**asdict(row), "met": row.met} for row in rows]
    (RESULTS / "engine.json").write_text(json.dumps(results, indent=2) + "\n")
    table = Table("what", "measured", "bar", "", "detail")
    for row in rows:
        bar = f"{'≥' if row.at_least else '≤'} {row.bar:g}"
        table.add_row(row.what, f"{row.value:.3g}", bar, "met" if row.met else "MISSED", row.detail)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the llama.cpp engine.")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of every comparison")
    parser.add_argument("--tokens", type=int, default=100, help="tokens of every answer where speed is compared")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="threads that compute, of either engine")
    parser.add_argument("--full", action="store_true", help="memory over 2,000 requests")
    parser.add_argument("--only", choices=("speed", "step", "reuse", "prompt", "memory"), help="one measurement")
    options = parser.parse_args()
    configure_logging("bench", "warning")
    measurements: dict[str, Callable[[], list[Row]]] = {
        "step": step_cost,
        "speed": lambda: asyncio.run(compare_speed(options.rounds, options.tokens, options.threads)),
        "reuse": lambda: asyncio.run(reuse(options.rounds, options.threads)),
        "prompt": lambda: asyncio.run(long_prompt(options.rounds, options.threads)),
        "memory": lambda: [asyncio.run(memory_growth(2000 if options.full else 400, options.threads))],
    }
    if find_spec("xllamacpp") is None:
        Console().print("skipped: the comparison with the server core, which needs the extra `bench`")
        del measurements["speed"]
    rows: list[Row] = []
    for name, measure in measurements.items():
        if options.only in (None, name):
            rows += measure()
    show(rows)


if __name__ == "__main__":
    main()
