"""What becomes of commands to a pool manager that is not there, or says no."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from llama_orch.v2 import pool_manager_service_pb2 as pb
from llorch.auth import BearerAuth
from llorch.background import TaskSupervisor
from llorch.errors import Reason, Unavailable
from llorch.ports import free_port
from llorch.rpc.server import RpcServer
from llorch.worker_spec import WorkerSpec
from orchestratord.core.effects import StageModel, StartWorker
from orchestratord.core.events import Event, StagingFailed, WorkerStartFailed
from orchestratord.runtime import node_commands
from orchestratord.runtime.authority import Authority
from orchestratord.runtime.control import CommandSequence
from orchestratord.runtime.node_commands import NodeCommands
from orchestratord.store.interface import Incarnation
from support.memory_store import MemoryStore

SERVICE = pb.DESCRIPTOR.services_by_name["PoolManagerService"].full_name
SPEC = WorkerSpec("w", "m", "file:/m.gguf", ("sim-0",), 1, 1024, reservation_mib=(1,))


class Commands:
    """To a node at an address; what is posted comes out of `event`."""

    def __init__(self, address: str, tasks: TaskSupervisor) -> None:
        self._posted: asyncio.Queue[Event] = asyncio.Queue()
        sequence = CommandSequence(Authority(MemoryStore(), Incarnation("cluster", 1)), lambda: "node")
        self.node = NodeCommands("garage", address, "pm-1", None, sequence, self._posted.put_nowait, tasks)

    async def event(self) -> Any:
        async with asyncio.timeout(10):
            return await self._posted.get()


@asynccontextmanager
async def commands(address: str) -> AsyncIterator[Commands]:
    async with TaskSupervisor("test") as tasks:
        made = Commands(address, tasks)
        try:
            yield made
        finally:
            await made.node.close()


async def test_a_pool_manager_that_is_not_there_may_be_just_starting_again() -> None:
    async with commands(f"127.0.0.1:{free_port()}") as made:
        made.node.start_worker(StartWorker("garage", SPEC))
        failed = await made.event()
        assert isinstance(failed, WorkerStartFailed)
        assert failed.reason is Reason.DRAINING
        made.node.stage_model(StageModel("garage", "file:/m.gguf"))
        failed = await made.event()
        assert isinstance(failed, StagingFailed)
        assert failed.reason is Reason.DRAINING
        assert "node 'garage' does not answer" in failed.message


async def test_one_that_stays_away_from_commands_is_told_as_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_commands, "_RESTARTS_WITHIN_S", 0.0)
    async with commands(f"127.0.0.1:{free_port()}") as made:
        made.node.start_worker(StartWorker("garage", SPEC))
        assert (await made.event()).reason is Reason.UPSTREAM_UNAVAILABLE


async def test_what_a_pool_manager_says_itself_is_passed_on() -> None:
    async def refuse(request: Any, context: Any) -> Any:
        raise Unavailable(Reason.STORE_FAILED, "its disk is full")

    def add(_servicer: object, server: Any) -> None:
        handler = grpc.unary_unary_rpc_method_handler(
            refuse,
            request_deserializer=pb.PoolManagerServiceStartWorkerRequest.FromString,
            response_serializer=pb.PoolManagerServiceStartWorkerResponse.SerializeToString,
        )
        server.add_registered_method_handlers(SERVICE, {"StartWorker": handler})

    server = RpcServer(name="node", bind="127.0.0.1:0", authenticator=BearerAuth(None))
    server.add(SERVICE, add, object())
    try:
        async with commands(await server.start()) as made:
            made.node.start_worker(StartWorker("garage", SPEC))
            failed = await made.event()
            assert (failed.reason, failed.message) == (Reason.STORE_FAILED, "its disk is full")
    finally:
        await server.stop(0.0)
