import asyncio

import pytest

from llorch import Client, End, Started
from llorch.errors import NotFound
from support.fake_orchestrator import TASK_ID, FakeOrchestrator


async def test_the_synchronous_client_streams(address: str) -> None:
    def use() -> list[type]:
        with Client(address) as client:
            return [type(event) for event in client.generate("smollm2", "Hi")]

    kinds = await asyncio.to_thread(use)
    assert (kinds[0], kinds[-1]) == (Started, End)


async def test_the_synchronous_client_does_all_that_the_other_does(address: str, fake: FakeOrchestrator) -> None:
    def use() -> None:
        with Client(address) as client:
            assert client.submit("smollm2", "Hi") == TASK_ID
            assert "".join(client.stream(TASK_ID).text()) == "Red, green, blue."
            assert client.cancel(TASK_ID)
            assert [model.spec.name for model in client.models()] == ["smollm2"]
            assert client.model("smollm2").spec.name == "smollm2"
            assert client.state().version == "0.1.0"
            assert client.tasks() == []
            with pytest.raises(NotFound):
                client.model("coder")

    await asyncio.to_thread(use)


async def test_closing_ends_a_stream_that_is_still_open(address: str, fake: FakeOrchestrator) -> None:
    fake.hang_before_end = True

    def use() -> None:
        client = Client(address)
        stream = client.generate("smollm2", "Hi")
        assert isinstance(next(stream), Started)
        client.close()
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            client.state()

    await asyncio.to_thread(use)
