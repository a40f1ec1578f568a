"""One GET, with its redirects: every hop is checked, and no secret goes to another origin than its own.

On the level of HTTP's core on purpose: there are no cookies, no proxies, no netrc, no decompression to switch off.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version

import httpcore2

from llorch.errors import LlorchError
from pool_managerd.models.download.answer import Interrupted
from pool_managerd.models.download.network import Network
from pool_managerd.models.download.policy import DownloadPolicy, Location, refused

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_USER_AGENT = f"llama-orch/{version('llama-orch')}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """`authorization` is shown to the origin of `url` alone; `headers` go to all hops."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    authorization: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """Headers by their names in lower case. `body` is what came over the wire, to be read within the context."""

    location: Location
    status: int
    headers: Mapping[str, str]
    body: AsyncIterator[bytes]


@asynccontextmanager
async def get(wanted: Wanted, policy: DownloadPolicy, network: Network) -> AsyncIterator[Answer]:
    """The first answer that is no redirect. Raises `PermissionDenied` by policy, `Interrupted`."""
    first = location = policy.location(wanted.url)
    for _ in range(policy.max_redirects + 1):
        async with _hop(wanted, location, first, policy, network) as answer:
            if answer.status not in _REDIRECTS:
                yield answer
                return
            target = answer.headers.get("location", "")
        location = policy.redirected(location, target)
    raise refused(f"{first.host} redirects more than {policy.max_redirects} times")


@asynccontextmanager
async def _hop(
    wanted: Wanted, location: Location, first: Location, policy: DownloadPolicy, network: Network
) -> AsyncIterator[Answer]:
    request = httpcore2.Request(
        "GET",
        httpcore2.URL(scheme="https", host=location.host, port=location.port, target=location.target),
        headers=list(_headers(wanted, location, first).items()),
        extensions={"timeout": {"connect": policy.answer_within_s, "read": policy.silence_s, "write": 10.0}},
    )
    pool = network.pool(lambda host, addresses: policy.check_addresses(host, addresses, first_host=first.host))
    with _broken_told(location.host):
        async with pool:
            # A server may send headers one by one for ever: the limit is for all of them.
            async with asyncio.timeout(policy.answer_within_s):
                response = await pool.handle_async_request(request)
            try:
                yield Answer(location, response.status, _read_headers(response), response.aiter_stream())
            finally:
                await response.aclose()


def _headers(wanted: Wanted, location: Location, first: Location) -> dict[str, str]:
    headers = {
        "Host": location.authority,
        "User-Agent": _USER_AGENT,
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        **wanted.headers,
    }
    if wanted.authorization and location.origin == first.origin:
        headers["Authorization"] = wanted.authorization
    return headers


def _read_headers(response: httpcore2.Response) -> dict[str, str]:
    """The first of each name, for what may be there once only; latin-1 never fails."""
    headers: dict[str, str] = {}
    for name, value in response.headers:
        headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return headers


class _broken_told:  # noqa: N801  # reads as what it does
    """Errors of the connection, in words."""

    def __init__(self, host: str) -> None:
        self._host = host

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and (told := self._told(error)):
            raise told from error

    def _told(self, error: BaseException) -> LlorchError | None:
        match error:
            case TimeoutError() | httpcore2.TimeoutException():
                return Interrupted(f"{self._host} did not answer in time")
            case httpcore2.ConnectError() if "certificate" in str(error).lower():
                return refused(f"{self._host} does not prove that it is {self._host} ({error})")
            case httpcore2.RemoteProtocolError() | httpcore2.LocalProtocolError():
                return Interrupted(f"{self._host} does not answer as HTTP has it")
            case httpcore2.NetworkError():
                return Interrupted(f"the connection to {self._host} broke")
            case _:
                return None
