"""What may be downloaded, and from where. Pure.

Any client of the API may send a reference, and a server may answer with a redirect to anywhere. So every URL and
every address is checked before anything is sent there: encrypted, of an allowed host, and outside of this network
unless the settings of this node allow otherwise.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import urljoin, urlsplit

from llorch.errors import LlorchError, PermissionDenied, Reason

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?\.?", re.ASCII)
_TARGET = re.compile(r"[!-~]*")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_HTTPS_PORT = 443
_LONGEST_URL = 8192
_WHERE = "in the section [pool_manager] of its settings file, and start its pool manager again"


@dataclass(frozen=True, slots=True)
class Location:
    """A URL that was checked. `target` is path and query."""

    host: str
    port: int
    target: str

    @property
    def origin(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def url(self) -> str:
        return f"https://{self.authority}{self.target}"

    @property
    def authority(self) -> str:
        """As the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _HTTPS_PORT else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class DownloadPolicy:
    """`hosts` are allowed, as names or patterns like `*.hf.co`; empty = every host with a public address.

    `private_hosts` may have addresses inside of this network; they have to be named in the reference itself, so that
    no other server can lead there. Times are in seconds.
    """

    hosts: tuple[str, ...] = ()
    private_hosts: tuple[str, ...] = ()
    max_file_bytes: int = 2**40
    max_duration_s: float = 24 * 3600.0
    max_redirects: int = 5
    answer_within_s: float = 30.0
    silence_s: float = 30.0
    slow_window_s: float = 60.0
    slowest_bytes_per_s: int = 1024

    def location(self, url: str) -> Location:
        """Raises `PermissionDenied` for a URL that this node does not fetch for any client."""
        location = _parse(url)
        if self.hosts and not _is_listed(location.host, (*self.hosts, *self.private_hosts)):
            raise refused(
                f"{location.host} is not among the hosts that this machine downloads from; if it should be, add it to "
                f"`download_hosts` {_WHERE}"
            )
        return location

    def redirected(self, start: Location, url: str) -> Location:
        """Where a redirect leads that `start` answered with; relative ones are resolved."""
        return self.location(urljoin(start.url, url))

    def check_addresses(self, host: str, addresses: Sequence[Address], *, first_host: str) -> None:
        """Raises unless all addresses of the host may be connected to. `first_host` is the one of the reference."""
        if host == first_host and _is_listed(host, self.private_hosts):
            return
        for address in addresses:
            if not is_public(address):
                raise refused(
                    f"{host} is an address inside of this network; if that is meant, add the host to "
                    f"`download_private_hosts` of this machine, {_WHERE}"
                )


def is_public(address: Address) -> bool:
    """Whether an address belongs to the internet, also if it is one of the old protocol inside of one of the new."""
    inner = _inner(address)
    return is_public(inner) if inner is not None else address.is_global and not address.is_multicast


def refused(why: str) -> PermissionDenied:
    return PermissionDenied(Reason.SOURCE_REFUSED, f"not downloaded: {why}")


def _inner(address: Address) -> ipaddress.IPv4Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    tunnelled = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or tunnelled


def _parse(url: str) -> Location:
    if len(url) > _LONGEST_URL or not _TARGET.fullmatch(url) or "\\" in url:
        raise _no_url(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _HTTPS_PORT
    except ValueError:
        raise _no_url(url) from None
    if parts.scheme != "https":
        raise refused(f"{parts.scheme or 'a URL without a scheme'} is not https")
    if parts.username is not None or parts.password is not None:
        raise refused("the URL holds a name or a password")
    if not (_HOST.fullmatch(host) or _is_ipv6(host)):
        raise _no_url(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Location(host.rstrip("."), port, target)


def _is_ipv6(host: str) -> bool:
    try:
        return "%" not in host and bool(ipaddress.IPv6Address(host))
    except ValueError:
        return False


def _is_listed(host: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(host, pattern.lower()) for pattern in patterns)


def _no_url(url: str) -> LlorchError:
    return refused(f"{url[:80]!r} is no URL of a host")
