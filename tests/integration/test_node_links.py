"""Which node may register, and which orchestrator it follows: the real link, without workers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llama_orch.v2 import node_link_pb2
from llorch.errors import Reason, Unavailable
from orchestratord.store.sqlite import open_sqlite
from pool_managerd.control import ControlGuard
from pool_managerd.link.node_link import NodeLink
from support.linked_node import linked
from support.orchestrator_stub import OrchestratorStub, serving
from support.whole_system import WholeSystem, orchestrator_alone, wait_until


@pytest.fixture
async def orchestrator(tmp_path: Path) -> AsyncIterator[WholeSystem]:
    async with orchestrator_alone(tmp_path) as alone:
        yield alone


@asynccontextmanager
async def machine(orchestrator: WholeSystem, address: str, card: str) -> AsyncIterator[None]:
    """A machine that calls itself garage, has this card, and wants to be a node for as long as the block lasts."""
    async with linked(orchestrator.address, address, card, orchestrator.folder / f"control of {card}"):
        yield


async def wait_card(orchestrator: WholeSystem, card: str) -> None:
    async def is_it() -> bool:
        return [ledger.device.name for ledger in (await orchestrator.state()).devices] == [card]

    await wait_until(is_it)


async def wait_said(capsys: pytest.CaptureFixture[str], words: str) -> None:
    seen = ""

    async def was_said() -> bool:
        nonlocal seen
        seen += "".join(capsys.readouterr())
        return words in seen

    await wait_until(was_said)


@pytest.mark.req("POOL-2007")
async def test_a_second_machine_under_the_same_name_is_refused_with_what_to_do(
    orchestrator: WholeSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    async with machine(orchestrator, "192.168.1.20:9200", "first"):
        await wait_card(orchestrator, "first")
        async with machine(orchestrator, "192.168.1.21:9200", "second"):
            await wait_said(capsys, "another machine, at 192.168.1.20:9200, is connected as 'garage'; set node_id")
            await wait_card(orchestrator, "first")


@pytest.mark.req("POOL-2007")
async def test_a_pool_manager_that_was_restarted_is_the_same_machine(orchestrator: WholeSystem) -> None:
    async with machine(orchestrator, "192.168.1.20:9200", "first"):
        await wait_card(orchestrator, "first")
        async with machine(orchestrator, "192.168.1.20:9200", "after the restart"):
            await wait_card(orchestrator, "after the restart")


@pytest.mark.req("POOL-2007")
async def test_a_name_is_free_again_as_soon_as_its_machine_has_gone(orchestrator: WholeSystem) -> None:
    async with machine(orchestrator, "192.168.1.20:9200", "first"):
        await wait_card(orchestrator, "first")
    async with machine(orchestrator, "192.168.1.21:9200", "second"):
        await wait_card(orchestrator, "second")


@pytest.mark.req("POOL-2007")
async def test_a_node_does_not_follow_an_orchestrator_that_was_superseded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = OrchestratorStub()
    stub.control_epoch = 3
    async with serving(stub) as address:
        async with linked(address, "192.168.1.20:9200", "card", tmp_path / "control"):
            await stub.wait_report(lambda report: report.report_seq == 2)
        stub.reports.clear()
        stub.control_epoch = 2
        async with linked(address, "192.168.1.20:9200", "card", tmp_path / "control"):
            await wait_said(capsys, "this orchestrator (epoch 2) was superseded (epoch 3)")
            assert {report.report_seq for report in stub.reports} == {1}
            stub.control_epoch = 4
            await stub.wait_report(lambda report: report.report_seq == 2)


@pytest.mark.req("POOL-2007")
async def test_a_node_tells_what_it_follows(tmp_path: Path) -> None:
    stub = OrchestratorStub()
    stub.control_epoch = 3
    async with serving(stub) as address:
        async with linked(address, "192.168.1.20:9200", "card", tmp_path / "control"):
            await stub.wait_report(lambda report: report.report_seq == 2)
        assert (stub.reports[0].register.cluster_id, stub.reports[0].register.control_epoch) == ("", 0)
        stub.reports.clear()
        async with linked(address, "192.168.1.20:9200", "card", tmp_path / "control"):
            report = await stub.wait_report(lambda report: report.report_seq == 1)
            assert (report.register.cluster_id, report.register.control_epoch) == ("cluster", 3)


@pytest.mark.req("POOL-2007")
async def test_an_orchestrator_that_was_superseded_on_its_own_store_does_not_win_the_node_back(
    orchestrator: WholeSystem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster_id = (await orchestrator.state()).cluster_id
    newer = await asyncio.to_thread(open_sqlite, tmp_path / "orchestrator")
    try:
        latest = await newer.begin_incarnation()
        assert latest.cluster_id == cluster_id
        control = tmp_path / "control"
        ControlGuard(control).follow(cluster_id, latest.control_epoch)
        async with linked(orchestrator.address, "192.168.1.20:9200", "card", control):
            await wait_said(capsys, "another orchestrator has taken over this one's store")
        assert not (await orchestrator.state()).nodes
        assert (await newer.raise_epoch(0)).control_epoch == latest.control_epoch + 1
    finally:
        await newer.close()


@pytest.mark.req("POOL-2007")
async def test_of_a_node_of_an_earlier_release_that_can_not_be_helped_the_operator_is_told_what_to_do(
    orchestrator: WholeSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register = NodeLink._register

    def without_epoch(self: NodeLink, snapshot: node_link_pb2.NodeSnapshot) -> node_link_pb2.Register:
        message = register(self, snapshot)
        message.ClearField("cluster_id")
        message.ClearField("control_epoch")
        return message

    async def is_told() -> bool:
        troubles = [node.trouble for node in (await orchestrator.state()).nodes]
        return any("its log says why" in it and "delete control.json" in it for it in troubles)

    monkeypatch.setattr(NodeLink, "_register", without_epoch)
    control = tmp_path / "control"
    ControlGuard(control).follow((await orchestrator.state()).cluster_id, 50)
    async with linked(orchestrator.address, "192.168.1.20:9200", "card", control):
        await wait_until(is_told)
    control.unlink()
    async with linked(orchestrator.address, "192.168.1.20:9200", "card", control):

        async def is_well() -> bool:
            return [node.trouble for node in (await orchestrator.state()).nodes] == [""]

        await wait_until(is_well)


async def test_of_a_node_that_leaves_at_once_the_operator_is_told_where_the_cause_stands(
    orchestrator: WholeSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has told its epoch, so that this is no matter of epochs."""

    def leave(self: NodeLink, directive: node_link_pb2.NodeDirective) -> float:
        raise Unavailable(Reason.STORE_FAILED, "the node can't go on")

    async def is_told() -> bool:
        return any("its log says why" in node.trouble for node in (await orchestrator.state()).nodes)

    control = tmp_path / "control"
    ControlGuard(control).follow((await orchestrator.state()).cluster_id, 50)
    monkeypatch.setattr(NodeLink, "_registered", leave)
    async with linked(orchestrator.address, "192.168.1.20:9200", "card", control):
        await wait_until(is_told)
        (node,) = (await orchestrator.state()).nodes
        assert "control.json" not in node.trouble
