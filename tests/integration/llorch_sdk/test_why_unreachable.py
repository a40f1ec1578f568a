"""What a user is told where no orchestrator answers: the true cause, and what helps against that one."""

import socket
from collections.abc import Iterator

import grpc
import pytest

from llorch.errors import DeadlineExceeded, LlorchError, Reason, Unavailable
from llorch.sdk.async_client import AsyncClient
from llorch.sdk.failures import Unreachable
from llorch.sdk.why_unreachable import why_unreachable
from support.free_ports import free_port

BROKEN = Unavailable(Reason.UPSTREAM_UNAVAILABLE, "can't be reached")
LATE = DeadlineExceeded(Reason.DEADLINE_PASSED, "nothing came")


def broken(details: str) -> LlorchError:
    """As the client's library has it."""
    error = Unavailable(Reason.UPSTREAM_UNAVAILABLE, "can't be reached")
    error.__cause__ = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details
    )
    return error


@pytest.fixture
def silent() -> Iterator[str]:
    """What takes connections and says nothing, as an orchestrator that is stopped does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.0.0.9"])
def test_starting_one_is_advised_where_nothing_listens_on_this_machine(host: str) -> None:
    assert why_unreachable(f"{host}:{free_port()}", BROKEN) == "start one with `llorch up`"


async def test_one_that_listens_and_does_not_answer_is_not_to_be_started_again(silent: str) -> None:
    async with AsyncClient(silent, timeout_s=0.3) as client:
        with pytest.raises(Unreachable, match="it hangs, or has too much to do") as refused:
            await client.state()
    assert "llorch up" not in refused.value.message


def test_another_program_at_the_address_is_told(silent: str) -> None:
    assert "another program listens there" in why_unreachable(silent, BROKEN)


@pytest.mark.parametrize(
    ("address", "error", "says"),
    [
        ("192.0.2.1:8090", BROKEN, "listens beyond loopback"),
        ("192.0.2.1:8090", LATE, "a firewall drops"),
        ("brain.lan:8090", broken("errors resolving brain.lan:8090: …"), "brain.lan is no name that this machine can"),
        ("brain.lan:8090", broken("… Connection refused"), "nothing listens at that port"),
    ],
)
def test_nothing_is_to_be_started_here_for_another_machine(address: str, error: LlorchError, says: str) -> None:
    told = why_unreachable(address, error)
    assert says in told
    assert "llorch up" not in told
