"""Whether the gateway, and the orchestrator behind it, answer over HTTP."""

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

from llorch.errors import Reason, Unavailable

_POLL_S = 0.05
_ANSWER_S = 2.0
_MOST_BYTES = 65536


async def wait_answering(address: str, timeout_s: float, token: str | None) -> None:
    """Raises Unavailable if `GET /v2/state` has no good answer in time. `address` is `host:port`."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while (answer := await asyncio.to_thread(_ask, address, token)).status != HTTPStatus.OK:
        if asyncio.get_running_loop().time() > deadline:
            said = f": {answer.message}" if answer.message else ""
            raise Unavailable(
                Reason.UPSTREAM_UNAVAILABLE,
                f"the gateway at {address} answers GET /v2/state with {answer.status}{said}",
            )
        await asyncio.sleep(_POLL_S)


def status_of(address: str, token: str | None) -> int | str:
    """The HTTP status, or what went wrong. Asks directly, whatever proxies the environment names."""
    return _ask(address, token).status


@dataclass(frozen=True, slots=True)
class _Answer:
    """`message` is that of an error which the gateway told."""

    status: int | str
    message: str = ""


def _ask(address: str, token: str | None) -> _Answer:
    connection = HTTPConnection(address, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/v2/state", headers={"Authorization": f"Bearer {token}"} if token else {})
        response = connection.getresponse()
        return _Answer(response.status, _message_in(response.read(_MOST_BYTES)))
    except (OSError, HTTPException) as error:
        return _Answer(f"{type(error).__name__}: {error}")
    finally:
        connection.close()


def _message_in(body: bytes) -> str:
    """Empty where the body, which may be another program's, has none."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return ""
