"""An older copy of the orchestrator's database is put back while its nodes and workers go on."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import pool_managerd.app
from llama_orch.v2 import node_pb2
from pool_managerd.control import ControlGuard
from support.whole_system import WholeSystem, another_node, gguf, task, wait_until, whole_system


async def run(system: WholeSystem, model: str = "sim") -> None:
    assert (await system.generate(task(model=model)))[-1].HasField("end")


async def worker_ids(system: WholeSystem) -> set[str]:
    return {worker.spec.worker_id for worker in (await system.state()).workers}


async def wait_nodes(system: WholeSystem, *node_ids: str) -> None:
    async def are_there() -> bool:
        nodes = (await system.state()).nodes
        return {node.node_id for node in nodes if node.state == node_pb2.NODE_STATE_READY} == set(node_ids)

    await wait_until(are_there)


class Database:
    """Of the system's orchestrator, which is ended while its files are copied."""

    def __init__(self, system: WholeSystem) -> None:
        assert system.lives is not None
        self._system = system
        self._lives = system.lives
        self._folder = system.folder / "orchestrator"
        self._copy = system.folder / "copy of the orchestrator"

    async def back_up(self) -> None:
        await self._lives.end()
        shutil.copytree(self._folder, self._copy)
        await self._lives.begin(self._system.address)

    async def put_back(self) -> None:
        if not self._lives.ended.is_set():
            await self._lives.end()
        shutil.rmtree(self._folder)
        shutil.copytree(self._copy, self._folder)
        await self._lives.begin(self._system.address)

    async def lose(self) -> None:
        await self._lives.end()
        shutil.rmtree(self._folder)
        await self._lives.begin(self._system.address)


async def latest_epoch_after_restarts(system: WholeSystem) -> int:
    """Of the node as well, which has carried out commands of each."""
    assert system.lives is not None
    for _ in range(3):
        await system.lives.begin_next(system.address)
        await wait_nodes(system, "garage")
        await run(system)
    return (await system.state()).control_epoch


async def test_the_node_comes_back_its_workers_are_used_and_models_are_loaded(tmp_path: Path) -> None:
    async with whole_system(tmp_path) as system:
        await run(system)
        before = await worker_ids(system)
        database = Database(system)
        await database.back_up()
        latest = await latest_epoch_after_restarts(system)

        await database.put_back()

        await wait_nodes(system, "garage")
        assert (await system.state()).control_epoch > latest
        await run(system)
        assert await worker_ids(system) == before
        await system.register("new", f"file:{gguf(tmp_path, 'new.gguf')}")
        await run(system, "new")
        assert len(await worker_ids(system)) == 2
        assert system.lives is not None
        await system.lives.begin_next(system.address)
        await wait_nodes(system, "garage")
        await run(system)
        assert before < await worker_ids(system)


async def test_a_worker_that_has_seen_a_later_epoch_than_its_node_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where an older copy of the node's own files is put back as well."""
    guards: list[ControlGuard] = []

    def made(path: Path) -> ControlGuard:
        guards.append(ControlGuard(path))
        return guards[-1]

    monkeypatch.setattr(pool_managerd.app, "ControlGuard", made)
    async with whole_system(tmp_path) as system:
        await run(system)
        before = await worker_ids(system)
        database = Database(system)
        await database.back_up()
        latest = await latest_epoch_after_restarts(system)
        assert system.lives is not None
        await system.lives.end()
        (guard,) = guards
        guard._authority = replace(guard.authority, control_epoch=1)

        await database.put_back()

        await wait_nodes(system, "garage")
        await run(system)
        assert await worker_ids(system) == before
        assert (await system.state()).control_epoch > latest


async def test_nodes_that_have_seen_different_epochs_come_back_both(tmp_path: Path) -> None:
    """One of them has seen the very epoch with which the orchestrator starts from the older copy."""
    async with whole_system(tmp_path) as system:
        database = Database(system)
        await database.back_up()
        assert system.lives is not None
        async with another_node(system, "attic", simulate_gpu=["RTX 3060:12GiB"]):
            seen_by_attic = (await system.state()).control_epoch
        for _ in range(2):
            await system.lives.begin_next(system.address)
            await wait_nodes(system, "garage")
        latest = (await system.state()).control_epoch

        await database.put_back()

        async with another_node(system, "attic", simulate_gpu=["RTX 3060:12GiB"]):
            await wait_nodes(system, "garage", "attic")
            assert (await system.state()).control_epoch > latest > seen_by_attic
            for node_id in ("garage", "attic"):
                name = f"on-{node_id}"
                await system.register(name, f"file:{gguf(tmp_path, f'{name}.gguf')}")
                spec = task(model=name)
                spec.placement.pin.extend([f"{node_id}/0"])
                assert (await system.generate(spec))[-1].HasField("end")


async def test_with_a_new_database_the_node_follows_the_new_cluster_and_so_do_its_workers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with whole_system(tmp_path) as system:
        await run(system)
        before, cluster_id = await worker_ids(system), (await system.state()).cluster_id

        await Database(system).lose()

        await wait_nodes(system, "garage")
        assert (await system.state()).cluster_id != cluster_id
        await system.register("sim", f"file:{tmp_path / 'sim.gguf'}", slots=4)
        await run(system)
        assert await worker_ids(system) == before
    assert "nothing if the orchestrator has begun with a new database" in "".join(capsys.readouterr())
