"""An orchestrator that starts on what an earlier version of it has kept."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from llama_orch.v2 import catalog_service_pb2, meta_service_pb2
from llorch.rpc.client import call
from orchestratord.store.sqlite import FILE
from support.stored_database import DATABASES
from support.whole_system import CALL_S, orchestrator_alone


@pytest.fixture(params=sorted(DATABASES.iterdir()), ids=lambda path: path.stem)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where an orchestrator of that version has run."""
    kept = tmp_path / "orchestrator"
    kept.mkdir()
    with closing(sqlite3.connect(kept / FILE)) as connection:
        connection.executescript(request.param.read_text())
    return tmp_path


async def test_an_orchestrator_starts_on_the_database_of_every_version(folder: Path) -> None:
    async with asyncio.timeout(30), orchestrator_alone(folder) as system:
        models = await call(system.catalog.ListModels, catalog_service_pb2.ListModelsRequest(), timeout_s=CALL_S)
        sources = {model.spec.name: model.spec.source for model in models.models}
        assert sources.pop("coder") == "file:/models/coder.gguf"
        assert set(sources.values()) <= {"dir:notes.gguf"}, "of a node's folder, since nodes are kept"
        audit = await call(system.meta.ListAudit, meta_service_pb2.ListAuditRequest(), timeout_s=CALL_S)
        assert audit.entries[-1].action == "model.deleted"
