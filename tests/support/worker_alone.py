"""A worker as a process, and the pool manager that takes its reports."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from llama_orch.v2 import pool_manager_service_pb2, worker_service_pb2_grpc
from llorch.auth import BearerAuth
from llorch.rpc.client import open_channel
from llorch.rpc.server import RpcServer

READY_TOKEN, ACCESS_TOKEN = "ready-secret", "access-secret"
POOL_MANAGER = pool_manager_service_pb2.DESCRIPTOR.services_by_name["PoolManagerService"].full_name


@dataclass
class PoolManager:
    """Takes the reports of workers; a worker calls no other RPC of its service."""

    address: str = ""
    reports: list[pool_manager_service_pb2.ReportWorkerReadyRequest] = field(default_factory=list)
    reported: asyncio.Event = field(default_factory=asyncio.Event)

    async def hear(
        self, request: pool_manager_service_pb2.ReportWorkerReadyRequest, context: Any
    ) -> pool_manager_service_pb2.ReportWorkerReadyResponse:
        self.reports.append(request)
        self.reported.set()
        return pool_manager_service_pb2.ReportWorkerReadyResponse()

    def add_to_server(self, _servicer: object, server: Any) -> None:
        """What generated code does."""
        hear = grpc.unary_unary_rpc_method_handler(
            self.hear,
            request_deserializer=pool_manager_service_pb2.ReportWorkerReadyRequest.FromString,
            response_serializer=pool_manager_service_pb2.ReportWorkerReadyResponse.SerializeToString,
        )
        server.add_registered_method_handlers(POOL_MANAGER, {"ReportWorkerReady": hear})

    async def report(self, *, loading: bool = False) -> pool_manager_service_pb2.ReportWorkerReadyRequest:
        """The first one from a worker that loads, or else from one that does so no more."""
        async with asyncio.timeout(20):
            while not (found := [report for report in self.reports if report.loading == loading]):
                self.reported.clear()
                await self.reported.wait()
        return found[0]


@asynccontextmanager
async def serve_pool_manager(bind: str = "127.0.0.1:0") -> AsyncIterator[PoolManager]:
    manager = PoolManager()
    server = RpcServer(name="pool", bind=bind, authenticator=BearerAuth(READY_TOKEN))
    server.add(POOL_MANAGER, manager.add_to_server, manager)
    manager.address = await server.start()
    server.set_serving(True)
    try:
        yield manager
    finally:
        await server.stop(grace_s=0.0)


@dataclass(frozen=True, slots=True)
class Worker:
    process: asyncio.subprocess.Process
    address_file: Path

    async def address(self) -> str:
        async with asyncio.timeout(20):
            while not self.address_file.exists():
                assert self.process.returncode is None, "the worker ended before it was ready"
                await asyncio.sleep(0.01)
        return self.address_file.read_text().strip()

    async def exit(self) -> tuple[int, str]:
        """The exit code, and the last line on stderr."""
        async with asyncio.timeout(20):
            _, errors = await self.process.communicate()
        lines = errors.decode().strip().splitlines()
        return self.process.returncode or 0, lines[-1] if lines else ""


StartProcess = Callable[..., Awaitable[Worker]]


@asynccontextmanager
async def worker_processes(folder: Path) -> AsyncIterator[StartProcess]:
    """`await start(sim={...}, flag=value, ...)`; they are killed at the end."""
    async with AsyncExitStack() as started:

        async def start(sim: dict[str, object] | None = None, **flags: str) -> Worker:
            return await started.enter_async_context(_process(folder, sim or {}, flags))

        yield start


@asynccontextmanager
async def _process(folder: Path, sim: dict[str, object], flags: dict[str, str]) -> AsyncIterator[Worker]:
    address_file = folder / "address"
    given = {"engine": "sim", "worker_id": "w1", "address_file": str(address_file), "sim": json.dumps(sim), **flags}
    arguments = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", value)]
    environment = {"LLORCH_WORKER_ACCESS_TOKEN": ACCESS_TOKEN, "LLORCH_WORKER_READY_TOKEN": READY_TOKEN}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "worker_orcd",
        *arguments,
        env={"PATH": os.environ["PATH"], **environment},
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield Worker(process, address_file)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def connect(address: str, token: str = ACCESS_TOKEN) -> AsyncIterator[worker_service_pb2_grpc.WorkerServiceStub]:
    channel = open_channel(address, token=token)
    try:
        yield worker_service_pb2_grpc.WorkerServiceStub(channel)
    finally:
        await channel.close(None)
