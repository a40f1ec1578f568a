"""Start and end of the daemon."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gatewayd import app
from gatewayd.settings import GatewaySettings
from llama_orch.v2 import task_service_pb2
from llorch.errors import LlorchError, Reason
from llorch.ports import PortTaken
from llorch.settings import read

from .conftest import RunningGateway, StartGateway, running_gateway
from .fake_orchestrator import FakeOrchestrator


async def test_a_port_that_is_taken_is_named_with_its_holder(gateway: RunningGateway) -> None:
    with pytest.raises(PortTaken) as caught:
        await app.run(GatewaySettings(bind=gateway.address), asyncio.Event())
    assert gateway.address.split(":")[1] in caught.value.message
    assert "pid" in caught.value.message
    assert "is free" in caught.value.message


async def test_a_bind_beyond_this_machine_needs_a_token() -> None:
    with pytest.raises(LlorchError) as caught:
        await app.run(GatewaySettings(bind="0.0.0.0:0"), asyncio.Event())
    assert caught.value.reason is Reason.TOKEN_MISSING


async def test_a_stop_before_anything_happened_ends_at_once() -> None:
    stop = asyncio.Event()
    stop.set()
    async with asyncio.timeout(5):
        await app.run(GatewaySettings(bind="127.0.0.1:0"), stop)


async def test_a_call_in_progress_is_answered_before_the_end(
    orchestrator: FakeOrchestrator, start_gateway: StartGateway
) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def wait(_request: Any, _context: Any) -> Any:
        entered.set()
        await release.wait()
        return task_service_pb2.GetTaskResponse()

    orchestrator.on("GetTask", wait)
    gateway = await start_gateway()
    asked = asyncio.create_task(gateway.client.get("/v2/tasks/t"))
    await entered.wait()
    gateway.stop.set()
    release.set()
    assert (await asked).status_code == 200
    await gateway.task


async def test_a_gateway_starts_before_its_orchestrator_and_finds_it_later(
    orchestrator: FakeOrchestrator, tmp_path: Path
) -> None:
    orchestrator.answer("GetTask", task_service_pb2.GetTaskResponse())
    address = orchestrator.address
    await orchestrator.stop()
    async with running_gateway(address, tmp_path) as gateway:
        assert (await gateway.client.get("/v2/tasks/t")).status_code == 503
        later = FakeOrchestrator(bind=address)
        later.answer("GetTask", task_service_pb2.GetTaskResponse())
        await later.start()
        try:
            async with asyncio.timeout(10):
                # As soon as the channel tries again.
                while (await gateway.client.get("/v2/tasks/t")).status_code != 200:
                    pass
        finally:
            await later.stop()


def test_settings_come_from_flags_and_environment() -> None:
    env = {"LLORCH_GATEWAY_TOKEN": "0123456789abcdef", "HOME": "/nonexistent"}
    settings = read(GatewaySettings, ["--allowed-host", "a.lan", "--allowed-host", "b.lan"], env)
    assert settings.allowed_host == ["a.lan", "b.lan"]
    assert settings.token == "0123456789abcdef"
    assert "0123456789abcdef" not in repr(settings)
