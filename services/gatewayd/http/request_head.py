"""The head of a request, checked: what two readers of it could understand differently is refused."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from gatewayd.http import limits
from gatewayd.http.stream import RequestHead
from gatewayd.route_table import MethodNotAllowed
from llorch.errors import InvalidArgument, Reason

_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
_ONCE = frozenset({"authorization", "content-length", "content-type", "host", "last-event-id", "origin"})


class NoProxy(MethodNotAllowed):
    """CONNECT asks for a proxy, which the gateway is not."""

    def __init__(self) -> None:
        super().__init__("CONNECT", "this gateway", _METHODS)
        self.message = "this gateway is no proxy and takes no CONNECT; send the request itself, e.g. GET /v2/state"


class HeadTooLarge(InvalidArgument):
    """HTTP has a status of its own for it: 431."""


def too_large_a_head() -> HeadTooLarge:
    return HeadTooLarge(
        Reason.REQUEST_TOO_LARGE,
        f"the request has more than {limits.HEADERS} headers, or they are larger than "
        f"{limits.HEAD_BYTES // 1024} KiB; send fewer, and put large values into the body",
    )


def read_head(method: str, target: str, raw: Iterable[tuple[str, str]], client: tuple[str, int] | None) -> RequestHead:
    """Raises InvalidArgument, which names what is wrong."""
    headers = _joined(raw)
    if method == "CONNECT":
        raise NoProxy
    if "content-length" in headers and "transfer-encoding" in headers:
        raise _malformed("the request has a Content-Length and a Transfer-Encoding; send one of them")
    if not headers.get("content-length", "0").isdecimal():
        raise _malformed("the request's Content-Length is no number of bytes; send it once, in digits")
    if not target.startswith("/") and target != "*":
        target, headers["host"] = _of_absolute(target)
    path, _, query = target.partition("?")
    return RequestHead(method, path, query.encode("ascii", "backslashreplace"), headers, client)


def _joined(raw: Iterable[tuple[str, str]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    size = 0
    for number, (name, value) in enumerate(raw):
        size += len(name) + len(value)
        if number == limits.HEADERS or size > limits.HEAD_BYTES:
            raise too_large_a_head()
        if name not in headers:
            headers[name] = value
        elif name not in _ONCE:
            headers[name] = f"{headers[name]}, {value}"
        elif headers[name] != value:
            raise _malformed(f"the request has two different values of {name}; send one")
    return headers


def _of_absolute(target: str) -> tuple[str, str]:
    """Path and host of `http://host/path?query`, which goes before the header."""
    try:
        parts = urlsplit(target)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise _malformed("the request's target is no path; it begins with /, e.g. GET /v2/state")
    return f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}", parts.netloc


def _malformed(message: str) -> InvalidArgument:
    return InvalidArgument(Reason.MALFORMED_REQUEST, message)
