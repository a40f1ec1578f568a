"""What becomes of commands to a pool manager that is not there, or says no."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from llama_orch.v2 import pool_manager_service_pb2 as pb
from llorch.auth import BearerAuth
from llorch.background import TaskSupervisor
from llorch.errors import Reason, ResourceExhausted, Unavailable
from llorch.rpc import transport_options
from llorch.rpc.server import RpcServer
from llorch.saved_sessions import MOST_AT_ONCE
from llorch.worker_spec import WorkerSpec
from orchestratord.core.effects import ForgetSavedSession, SessionToSave, StageModel, StartWorker, StopWorker
from orchestratord.core.events import Event, StagingFailed, WorkerStartAccepted, WorkerStartFailed
from orchestratord.core.facts.fleet import Leaving
from orchestratord.runtime import node_commands
from orchestratord.runtime.authority import Authority
from orchestratord.runtime.control import CommandSequence
from orchestratord.runtime.effect_runner import EffectRunner
from orchestratord.runtime.node_commands import NodeCommands
from orchestratord.runtime.session_names import saved_session_name
from orchestratord.store.interface import Incarnation
from support.brain_driver import BrainDriver
from support.free_ports import free_port
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


@asynccontextmanager
async def serving(**methods: Any) -> AsyncIterator[str]:
    """A pool manager that has some of its methods."""

    def handler(name: str, behaviour: Any) -> Any:
        method = pb.DESCRIPTOR.services_by_name["PoolManagerService"].methods_by_name[name]
        make = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        return make(
            behaviour,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )

    def add(_servicer: object, server: Any) -> None:
        server.add_registered_method_handlers(SERVICE, {name: handler(name, each) for name, each in methods.items()})

    server = RpcServer(name="node", bind="127.0.0.1:0", authenticator=BearerAuth(None))
    server.add(SERVICE, add, object())
    try:
        yield await server.start()
    finally:
        await server.stop(0.0)


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

    async with serving(StartWorker=refuse) as address, commands(address) as made:
        made.node.start_worker(StartWorker("garage", SPEC))
        failed = await made.event()
        assert (failed.reason, failed.message) == (Reason.STORE_FAILED, "its disk is full")


async def test_readers_of_logs_are_bounded_and_leave_commands_their_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_options, "CALLS_PER_CONNECTION", 4)
    monkeypatch.setattr(node_commands, "_LOGS_AT_ONCE", 5)

    async def log(request: Any, context: Any) -> None:
        await context.write(pb.PoolManagerServiceStreamWorkerLogResponse(lines=["loading"]))
        await asyncio.Event().wait()

    async def start(request: Any, context: Any) -> pb.PoolManagerServiceStartWorkerResponse:
        return pb.PoolManagerServiceStartWorkerResponse()

    asked = pb.PoolManagerServiceStreamWorkerLogRequest(worker_id="w", follow=True)
    async with serving(StreamWorkerLog=log, StartWorker=start) as address, commands(address) as made:
        async with AsyncExitStack() as stack, asyncio.timeout(10):
            for _ in range(5):
                await anext(aiter(await stack.enter_async_context(made.node.read_log(asked))))
            with pytest.raises(ResourceExhausted, match="5 logs are read on node 'garage' already") as refused:
                await stack.enter_async_context(made.node.read_log(asked))
            assert (refused.value.reason, refused.value.retry_after_ms) == (Reason.TOO_MANY_CALLS, 1000)
            made.node.start_worker(StartWorker("garage", SPEC))
            assert isinstance(await made.event(), WorkerStartAccepted)
        async with made.node.read_log(asked) as answers:
            await anext(aiter(answers))


async def test_pulls_and_verifications_are_bounded_and_leave_commands_their_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport_options, "CALLS_PER_CONNECTION", 2)
    monkeypatch.setattr(node_commands, "_FILES_AT_ONCE", 2)
    begun, has_begun = 0, asyncio.Event()

    async def work_for_ever(request: Any, context: Any) -> None:
        nonlocal begun
        begun += 1
        if begun == 2:
            has_begun.set()
        await asyncio.Event().wait()

    async def start(request: Any, context: Any) -> pb.PoolManagerServiceStartWorkerResponse:
        return pb.PoolManagerServiceStartWorkerResponse()

    async def tell(progress: pb.StageProgress) -> None:
        raise AssertionError("no progress was told")

    methods = {"StageModel": work_for_ever, "VerifyStagedModel": work_for_ever, "StartWorker": start}
    async with serving(**methods) as address, commands(address) as made, asyncio.timeout(10):
        working = [
            asyncio.ensure_future(made.node.pull("file:/m.gguf", tell)),
            asyncio.ensure_future(made.node.verify_model("file:/m.gguf")),
        ]
        await has_begun.wait()
        with pytest.raises(ResourceExhausted, match="2 files are pulled or verified on node 'garage'"):
            await made.node.pull("file:/m.gguf", tell)
        made.node.start_worker(StartWorker("garage", SPEC))
        assert isinstance(await made.event(), WorkerStartAccepted)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)


async def test_a_stop_names_the_sessions_to_save_the_last_used_first_and_no_more_than_may_be_named() -> None:
    stops: asyncio.Queue[Any] = asyncio.Queue()

    async def stop(request: Any, context: Any) -> pb.PoolManagerServiceStopWorkerResponse:
        stops.put_nowait(request)
        return pb.PoolManagerServiceStopWorkerResponse()

    times_s = (float("inf"), 599.9996, 0.0001, *(0.00001 for _ in range(MOST_AT_ONCE)))
    save = tuple(SessionToSave("chat-ui", f"s-{number}", keep_s) for number, keep_s in enumerate(times_s))
    async with serving(StopWorker=stop) as address, commands(address) as made, asyncio.timeout(10):
        made.node.stop_worker(StopWorker("garage", "w", Leaving.IDLE, save))
        request = await stops.get()
        made.node.stop_worker(StopWorker("garage", "w", Leaving.IDLE))
        assert not (await stops.get()).save
    assert [it.saved_session for it in request.save] == [
        saved_session_name("cluster", "chat-ui", f"s-{number}") for number in range(MOST_AT_ONCE)
    ]
    assert [it.keep_ms for it in request.save[:4]] == [2**32 - 1, 600_000, 1, 1]


async def test_a_session_that_ends_with_a_node_is_forgotten_on_no_node() -> None:
    owner: Any = SimpleNamespace(state=BrainDriver().state)
    rest: Any = None
    kept: Any = SimpleNamespace(keep_record=None, keep_change=None)
    async with TaskSupervisor("test") as tasks:
        runner = EffectRunner(owner, rest, kept, rest, rest, tasks, None)
        runner.perform(ForgetSavedSession("garage", "chat-ui", "s-0"))
        await runner.close()


class ForgettingNode:
    """Answers when `may_answer` is set; says no to what comes first."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.told: asyncio.Queue[list[str]] = asyncio.Queue()
        self._refusals = 1

    async def forget(self, request: Any, context: Any) -> pb.ForgetSavedSessionsResponse:
        self.told.put_nowait(list(request.saved_sessions))
        await self.may_answer.wait()
        if self._refusals:
            self._refusals -= 1
            raise Unavailable(Reason.STORE_FAILED, "its disk does not answer")
        return pb.ForgetSavedSessionsResponse()


async def test_sessions_that_end_while_others_are_forgotten_are_told_together_and_never_as_none() -> None:
    """None named would mean all that the node has."""
    node = ForgettingNode()
    names = [saved_session_name("cluster", "chat-ui", f"s-{number}") for number in range(MOST_AT_ONCE + 2)]
    async with serving(ForgetSavedSessions=node.forget) as address, commands(address) as made, asyncio.timeout(10):
        made.node.forget_saved_session(ForgetSavedSession("garage", "chat-ui", "s-0"))
        assert await node.told.get() == names[:1]
        for number in range(1, MOST_AT_ONCE + 2):
            made.node.forget_saved_session(ForgetSavedSession("garage", "chat-ui", f"s-{number}"))
        node.may_answer.set()
        told = [await node.told.get(), await node.told.get()]
        assert [len(some) for some in told] == [MOST_AT_ONCE, 1]
        assert sorted(name for some in told for name in some) == sorted(names[1:])
        while made.node._is_forgetting:
            await asyncio.sleep(0.01)
        made.node.forget_saved_session(ForgetSavedSession("garage", "chat-ui", "s-0"))
        assert await node.told.get() == names[:1], "although the first call failed"
        made.node.forget_all_saved_sessions()
        assert await node.told.get() == []
    assert node.told.empty()
