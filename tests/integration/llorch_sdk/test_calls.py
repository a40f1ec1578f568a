from typing import Any

import pytest

from llorch import AsyncClient, Unreachable
from llorch.errors import InvalidArgument, Unauthenticated
from support.fake_orchestrator import TASK_ID, FakeOrchestrator, serving, smollm2
from support.free_ports import free_port


async def test_models_reads_all_pages(client: AsyncClient, fake: FakeOrchestrator) -> None:
    fake.models = [smollm2(), smollm2(), smollm2()]

    assert len(await client.models()) == 3


async def test_register_model_sends_name_source_and_settings(client: AsyncClient) -> None:
    model = await client.register_model("coder", "file:/models/coder.gguf", context=8192)

    assert (model.spec.name, model.spec.source, model.spec.context) == ("coder", "file:/models/coder.gguf", 8192)


async def test_state_has_nodes_and_devices(client: AsyncClient) -> None:
    state = await client.state()

    assert [node.node_id for node in state.nodes] == ["garage"]
    assert len(state.devices) == 2


async def test_cancel_names_the_task(client: AsyncClient, fake: FakeOrchestrator) -> None:
    assert await client.cancel(TASK_ID)
    assert fake.cancelled == [TASK_ID]


async def test_where_no_orchestrator_answers_the_address_and_the_remedy_are_named() -> None:
    address = f"127.0.0.1:{free_port()}"

    async with AsyncClient(address) as client:
        with pytest.raises(Unreachable, match=f"no orchestrator answers at {address}: start one with `llorch up`"):
            await client.state()


async def test_the_token_is_shown(fake: FakeOrchestrator) -> None:
    async with serving(fake, token="secret") as address:
        async with AsyncClient(address, token="secret") as client:
            await client.state()
        async with AsyncClient(address) as client:
            with pytest.raises(Unauthenticated):
                await client.state()


@pytest.mark.parametrize("settings", [{"context": -1}, {"contxt": 4096}, {"slots": "many"}, {"aliases": "\udcff"}])
async def test_settings_that_a_model_cannot_have_are_refused_by_name(
    client: AsyncClient, settings: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await client.register_model("coder", "file:/models/coder.gguf", **settings)
    assert refused.value.violations[0].field.partition("[")[0] in settings
