"""Which token a client shows that was given none, and what it says where that does not help."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from llorch import AsyncClient
from llorch.errors import LlorchError, Reason, Unauthenticated
from llorch.network_identity import network_id
from llorch.ports import is_free
from llorch.token_file import kept_token
from support.fake_orchestrator import FakeOrchestrator, serving

TOKEN = "a-long-secret-of-this-test"


class ShownTokens(grpc.GenericRpcHandler):
    """Serves nothing, and notes what it was shown."""

    def __init__(self) -> None:
        self.shown: list[str | bytes | None] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> None:
        self.shown.append(dict(handler_call_details.invocation_metadata).get("authorization"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("LLORCH_API_TOKEN", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "llama-orch" / "tokens"


async def refusal(address: str, token: str | None = None) -> Unauthenticated:
    """Of a call; a stream that is read, and one of a task, are refused in the same words."""
    async with AsyncClient(address, token) as client:
        with pytest.raises(Unauthenticated) as refused:
            await client.state()
        with pytest.raises(Unauthenticated) as watched:
            await anext(aiter(client.watch_state()))
        with pytest.raises(Unauthenticated) as generated:
            await client.generate("m", "x").answer()
    assert refused.value.message == watched.value.message == generated.value.message
    return refused.value


async def test_the_kept_token_is_shown(fake: FakeOrchestrator) -> None:
    async with serving(fake, token=TOKEN) as address:
        with kept_token(address, TOKEN):
            async with AsyncClient(address) as client:
                assert await client.state()


async def test_a_client_of_before_finds_the_token_of_an_up_that_began_since(fake: FakeOrchestrator) -> None:
    async with serving(fake, token=TOKEN) as address, AsyncClient(address) as client:
        with pytest.raises(Unauthenticated, match="set LLORCH_API_TOKEN"):
            await client.state()
        with kept_token(address, "of-an-earlier-up"), pytest.raises(Unauthenticated):
            await client.state()
        with kept_token(address, TOKEN):
            assert await client.state()
            assert (await client.generate("smollm2", "x").answer()).text
        # What listens here once `llorch up` has ended is not shown its token.
        with pytest.raises(Unauthenticated) as refused:
            await client.state()
    assert refused.value.reason is Reason.TOKEN_MISSING


@pytest.mark.parametrize("comes_back", [True, False])
async def test_a_reader_comes_back_when_the_next_up_keeps_its_token(fake: FakeOrchestrator, comes_back: bool) -> None:
    """Its connection broke when `llorch up` ended, and the next orchestrator answers before its token is kept."""
    fake.stream_breaks_after = [2]
    async with (
        serving(fake, token=TOKEN) as address,
        AsyncClient(address, reconnect_for_s=3 if comes_back else 0.3) as client,
    ):
        with ExitStack() as first, ExitStack() as second:
            first.enter_context(kept_token(address, TOKEN))
            stream = client.generate("smollm2", "x")
            await anext(stream)
            first.close()
            if comes_back:
                asyncio.get_running_loop().call_later(0.3, second.enter_context, kept_token(address, TOKEN))
                assert (await stream.answer()).text
            else:
                with pytest.raises(Unauthenticated, match="set LLORCH_API_TOKEN"):
                    await stream.answer()


@pytest.mark.skipif(not is_free("::1", 0), reason="this machine has no [::1] where another program could listen")
async def test_the_token_is_shown_to_no_other_address_of_the_same_name(fake: FakeOrchestrator) -> None:
    """gRPC tries [::1] first for `localhost`, where another user's program may listen."""
    listener = ShownTokens()
    server = grpc.aio.server(handlers=(listener,))
    async with serving(fake, token=TOKEN) as address:
        port = address.rpartition(":")[2]
        server.add_insecure_port(f"[::1]:{port}")
        await server.start()
        try:
            async with AsyncClient(f"localhost:{port}", timeout_s=5) as client:
                with kept_token(address, TOKEN):
                    assert await client.state()
                    assert client.address == address
                with pytest.raises(LlorchError):
                    await client.state()
            assert listener.shown == [None]
        finally:
            await server.stop(None)


async def test_where_nothing_is_kept_it_is_told_how_to_give_one(fake: FakeOrchestrator) -> None:
    async with serving(fake, token=TOKEN) as address:
        error = await refusal(address)
    assert error.reason is Reason.TOKEN_MISSING
    assert f"the orchestrator at {address} asks for a token: set LLORCH_API_TOKEN" in error.message
    assert "LLORCH_ORCHESTRATOR_TOKEN" in error.message


async def test_a_file_that_is_left_over_is_named(fake: FakeOrchestrator, folder: Path) -> None:
    async with serving(fake, token=TOKEN) as address:
        folder.mkdir(mode=0o700, parents=True)  # noqa: ASYNC240  # a local folder, in a test
        left = folder / f"{address}@{network_id()}"
        left.touch(mode=0o600)
        left.write_text(TOKEN)
        error = await refusal(address)
    assert f"{left} is left over from an `llorch up` that has ended" in error.message


async def test_a_kept_token_that_is_refused_names_its_file(fake: FakeOrchestrator, folder: Path) -> None:
    async with serving(fake, token=TOKEN) as address:
        with kept_token(address, "of-another"):
            error = await refusal(address)
    assert error.reason is Reason.TOKEN_INVALID
    assert str(folder / address) in error.message
    assert "of-another" not in error.message


async def test_a_wrong_token_that_was_given_is_called_wrong(fake: FakeOrchestrator) -> None:
    async with serving(fake, token=TOKEN) as address:
        with kept_token(address, TOKEN):
            error = await refusal(address, "wrong")
    assert error.reason is Reason.TOKEN_INVALID
    assert f"the orchestrator at {address} does not take the bearer token that it was shown" in error.message
