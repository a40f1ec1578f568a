"""Streams over two hosts with a worker on each, to which something is about to happen."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import grpc

from llama_orch.v2 import assignment_pb2, node_pb2, task_pb2, worker_pb2
from llorch.rpc.client import open_channel
from llorch.sdk.async_client import AsyncClient
from support.machines import Machines, wait_for
from support.unbroken_reading import Reading
from support.whole_system import gguf
from worker_orcd.engines.sim.tokens import sim_text

MODEL = "story"
SEED = 11
HOSTS = ("attic", "cellar")
CARD = "RTX 3060:12GiB"
CLAIM_MIB = 7000
"""More than half of a card: one worker on each host."""
SLOTS = 8
TOKENS_PER_S = 30
"""Of each stream, so that the systems of a test, with several streams each, fit on two cores."""
SIM = {"decode_tokens_per_s": TOKENS_PER_S, "load_s": 0.1}
TOKENS = 4 * TOKENS_PER_S
STREAMS = 6


@dataclass
class Herd:
    """Streams that begin anew as they end, for as long as the test wants; on the host `prefer`, if there is one."""

    channel: grpc.aio.Channel
    tokens: int = TOKENS
    prefer: str = ""
    reading: list[Reading] = field(default_factory=list)
    done: list[Reading] = field(default_factory=list)
    is_wanted: bool = True

    async def keep(self, streams: int) -> None:
        """Returns when no more are wanted and all have ended."""
        async with asyncio.TaskGroup() as group:
            for _ in range(streams):
                group.create_task(self._one_after_the_other())

    async def _one_after_the_other(self) -> None:
        while self.is_wanted:
            read = Reading(self.channel, spec(self.tokens, self.prefer))
            self.reading.append(read)
            await read.run()
            self.reading.remove(read)
            self.done.append(read)

    def aboard(self, worker_id: str) -> list[Reading]:
        """Those whose output comes from there."""
        return [read for read in self.reading if read.worker_id == worker_id and read.tokens and not read.has_ended]

    def check(self) -> None:
        for read in self.done:
            assert read.text() == sim_text(SEED, 0, self.tokens), f"task {read.task_id}, attempts {read.attempts}"


def spec(tokens: int, prefer: str = "") -> task_pb2.TaskSpec:
    work = task_pb2.GenerateWork(prompt="once upon a time", max_tokens=tokens)
    work.sampling.seed = SEED
    wishes = task_pb2.PlacementOverrides(prefer=[prefer]) if prefer else None
    return task_pb2.TaskSpec(model=MODEL, generate=work, placement=wishes)


async def ready_workers(client: AsyncClient) -> list[worker_pb2.Worker]:
    """Of hosts that are there: what is known of the others is from before they went."""
    state = await client.state()
    there = {node.node_id for node in state.nodes if node.state == node_pb2.NODE_STATE_READY}
    return [
        worker for worker in state.workers if worker.state == worker_pb2.WORKER_STATE_READY and worker.node_id in there
    ]


async def is_known_to_be_gone(client: AsyncClient, worker: worker_pb2.Worker) -> bool:
    return all(other.spec.worker_id != worker.spec.worker_id for other in await ready_workers(client))


async def both_are_ready(client: AsyncClient) -> bool:
    return len({worker.node_id for worker in await ready_workers(client)}) == len(HOSTS)


@asynccontextmanager
async def two_hosts(running: Machines, folder: Path) -> AsyncIterator[tuple[AsyncClient, grpc.aio.Channel]]:
    """Each has a worker of the model, and gets another one when that is gone."""
    channel = open_channel(running.orchestrator.address, token=running.orchestrator.token)
    try:
        async with running.client() as client:
            source = f"file:{gguf(folder, 'story.gguf')}"
            await client.register_model(MODEL, source, slots=SLOTS, vram_claim_mib=CLAIM_MIB)
            prefer = assignment_pb2.ASSIGNMENT_MODE_PREFER
            await client.assign(list(HOSTS), prefer, model=MODEL, replicas_min=2, replicas_max=2)
            await wait_for(lambda: both_are_ready(client), "a worker on each host")
            yield client, channel
    finally:
        await channel.close()


async def several_aboard(
    client: AsyncClient, channel: grpc.aio.Channel, tokens: int, prefer: str = ""
) -> tuple[worker_pb2.Worker, Herd, asyncio.Task[None]]:
    """The worker to whose host something is about to happen, with streams on it, after which no more come."""
    await wait_for(lambda: both_are_ready(client), "a worker on each host")
    herd = Herd(channel, tokens, prefer)
    keeping = asyncio.create_task(herd.keep(STREAMS))
    await wait_for(lambda: is_true(sum(read.tokens > 0 for read in herd.reading) == STREAMS), "all streams to run")
    herd.is_wanted = False
    worker = max(await ready_workers(client), key=lambda worker: len(herd.aboard(worker.spec.worker_id)))
    return worker, herd, keeping


def longest_gap(read: Reading, since: float) -> float:
    """Between two outputs, of those that end after then."""
    times = [since, *(came_at for came_at in read.came_at if came_at > since)]
    return max((later - earlier for earlier, later in pairwise(times)), default=0.0)


async def is_true(it: bool) -> bool:
    return it
