"""An orchestrator that begins with a settings file: what it says is in force, or the start is refused."""

import asyncio
import re
from pathlib import Path

import pytest

from llama_orch.v2 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    model_pb2,
    placement_service_pb2,
    placement_service_pb2_grpc,
)
from llorch.exception_groups import root_of
from llorch.rpc.client import call
from llorch.settings import SettingsError
from orchestratord import app
from orchestratord.settings import OrchestratorSettings
from support.whole_system import CALL_S, gguf, wait_until, whole_system

RIGHT = """
[models.coder]
source = "file:/m/coder.gguf"
aliases = ["small"]

[apps.aider]
models = { "gpt-4o-mini" = "small" }

[[assignments]]
model = "coder"
to = ["garage/3090"]
mode = "pin"
"""


async def start(folder: Path, text: str) -> None:
    """Returns after a start and an end; raises what the start is refused with."""
    file = folder / "llama-orch.toml"
    file.write_text(text)
    settings = OrchestratorSettings(
        config=file, bind="127.0.0.1:0", data_dir=folder / "data", drain_s=0, package_models=False
    )
    stop = asyncio.Event()
    stop.set()
    await app.run(settings, stop)


async def test_places_of_machines_that_are_not_there_yet_are_no_hindrance(tmp_path: Path) -> None:
    for _ in range(2):
        await start(tmp_path, RIGHT)


async def test_a_file_that_no_machine_has_is_told_before_it_is_asked_for(tmp_path: Path) -> None:
    config = tmp_path / "llama-orch.toml"
    there, lost = gguf(tmp_path), tmp_path / "nope.gguf"
    config.write_text(f'[models.lost]\nsource = "file:{lost}"\n[models.there]\nsource = "file:{there}"\n')
    async with whole_system(tmp_path, config=config) as system:
        catalog = catalog_service_pb2_grpc.CatalogServiceStub(system.channel)

        async def shown(name: str) -> model_pb2.Model:
            request = catalog_service_pb2.GetModelRequest(model=name)
            return (await call(catalog.GetModel, request, timeout_s=CALL_S)).model

        async def has_looked() -> bool:
            return bool((await shown("lost")).problems) and (await shown("there")).HasField("size_mib")

        await wait_until(has_looked)
        (problem,) = (await shown("lost")).problems
        assert problem.endswith(" (on garage)")
        assert not (await shown("there")).problems
        placement = placement_service_pb2_grpc.PlacementServiceStub(system.channel)
        request = placement_service_pb2.ExplainPlacementRequest(model="lost")
        told = (await call(placement.ExplainPlacement, request, timeout_s=CALL_S)).decision.summary
        assert told.startswith(f"can't be placed: {problem.removeprefix('garage: ')}")
        assert not (await system.state()).load_failures
        listed = {one["id"]: one["created"] for one in (await system.http.get("/v1/models")).json()["data"]}
        assert listed["lost"] == listed["there"] > 0


CONTRADICTION = """
[models.coder]
source = "file:/m/coder.gguf"

[[assignments]]
model = "coder"
to = ["garage"]
mode = "pin"

[[assignments]]
model = "coder"
to = ["garage"]
mode = "avoid"
"""


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[models.coder]\nslots = 2\n", r"\[models\.coder\]: source"),
        (
            '[models.a]\nsource = "file:/a"\naliases = ["x"]\n[models.b]\nsource = "file:/b"\naliases = ["x"]\n',
            r"\[models\.b\]: 'x' already means model 'a'",
        ),
        ('[apps.a]\npriority = "urgent"\n', r"\[apps\.a\]: priority"),
        (CONTRADICTION, r"\[\[assignments\]\] number 2: .*coder\.avoid.* contradicts .*coder\.pin"),
    ],
    ids=["no source", "one alias, two models", "unknown priority", "contradiction"],
)
async def test_what_can_not_be_in_force_is_refused_at_the_start(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ExceptionGroup) as refused:
        await start(tmp_path, text)
    cause = root_of(refused.value)
    assert isinstance(cause, SettingsError)
    assert re.search(named, cause.message)


async def test_a_second_start_reads_the_file_anew(tmp_path: Path) -> None:
    """What was in the file and is not any more is gone; it was never the store's."""
    await start(tmp_path, RIGHT)
    await start(tmp_path, '[models.small]\nsource = "file:/m/small.gguf"\n')
