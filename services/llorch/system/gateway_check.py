"""Whether the gateway, and the orchestrator behind it, answer over HTTP."""

import asyncio
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

from llorch.errors import Reason, Unavailable

_POLL_S = 0.05
_ANSWER_S = 2.0


async def wait_answering(address: str, timeout_s: float) -> None:
    """Raises Unavailable if `GET /v2/state` has no good answer in time. `address` is `host:port`."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while (answer := await asyncio.to_thread(status_of, address)) != HTTPStatus.OK:
        if asyncio.get_running_loop().time() > deadline:
            raise Unavailable(
                Reason.UPSTREAM_UNAVAILABLE, f"the gateway at {address} answers GET /v2/state with {answer}"
            )
        await asyncio.sleep(_POLL_S)


def status_of(address: str) -> int | str:
    """The HTTP status, or what went wrong. Asks directly, whatever proxies the environment names."""
    connection = HTTPConnection(address, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/v2/state")
        return connection.getresponse().status
    except (OSError, HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
