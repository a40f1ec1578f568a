"""Whatever a client may call in the contract, the SDK can call. A new RPC fails here."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llorch.sdk
from llama_orch.v2 import (
    app_service_pb2,
    catalog_service_pb2,
    fleet_service_pb2,
    meta_service_pb2,
    placement_service_pb2,
    session_service_pb2,
    task_service_pb2,
)
from llorch.rpc.client import open_channel
from llorch.sdk.caller import Stubs
from orchestratord.api.fleet_service import FleetService

FOR_CLIENTS = (
    app_service_pb2,
    catalog_service_pb2,
    fleet_service_pb2,
    meta_service_pb2,
    placement_service_pb2,
    session_service_pb2,
    task_service_pb2,
)
PAGES = {"page_size", "page_token"}
"""Every list is read to its end."""

SOURCES = [file.read_text() for file in Path(llorch.sdk.__path__[0]).glob("*.py")]


async def test_every_rpc_for_clients_that_the_orchestrator_does_can_be_called() -> None:
    services: list[Any] = [one for file in FOR_CLIENTS for one in file.DESCRIPTOR.services_by_name.values()]
    offered = {f"{service.name}/{method.name}" for service in services for method in service.methods}

    assert await called() == offered - set(FleetService.unimplemented)


def test_every_field_of_every_request_can_be_said() -> None:
    kinds: dict[str, Any] = {
        name: kind for file in FOR_CLIENTS for name, kind in file.DESCRIPTOR.message_types_by_name.items()
    }

    for name, said in requests():
        assert said | PAGES == set(kinds[name].fields_by_name) | PAGES, name


async def called() -> set[str]:
    """What the SDK's source calls, as "Service/Method"."""
    async with open_channel("127.0.0.1:1") as channel:
        stubs = Stubs(lambda: channel)
        return {
            f"{type(getattr(stubs, group)).__name__.removesuffix('Stub')}/{method}"
            for source in SOURCES
            for group, method in re.findall(r"_stubs\.(\w+)\.(\w+)", source)
        }


def requests() -> Iterator[tuple[str, set[str]]]:
    """The requests that the SDK's source makes, each with the fields that it names."""
    calls = (node for source in SOURCES for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    for call in calls:
        made = call.args[0] if isinstance(call.func, ast.Name) and call.func.id == "filled" else call.func
        if isinstance(made, ast.Attribute) and made.attr.endswith("Request"):
            yield made.attr, {str(keyword.arg) for keyword in call.keywords}
