"""Addresses to listen on: splitting, testing, and finding the process that holds a port."""

import errno
import ipaddress
import os
import socket
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from llorch.errors import FailedPrecondition, LlorchError, Reason, invalid_field
from llorch.half_written import remove_left


class PortTaken(FailedPrecondition):
    """Another process listens there. `taken` names it, `remedy` a free port; the message has both, such as
    `port 8080 is taken by python3 (pid 123); 8081 is free: use --bind 127.0.0.1:8081`.
    """

    def __init__(self, host: str, port: int) -> None:
        free = _next_free(host, port)
        self.taken = f"port {port} is taken by {_holder(port)}"
        self.remedy = f"{free} is free: use --bind {join_address(host, free)}"
        super().__init__(Reason.INVALID_FIELD, f"{self.taken}; {self.remedy}", metadata={"port": str(port)})


def split_address(bind: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` in two; refuses anything else."""
    host, separator, port = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (separator and host and port.isdecimal() and int(port) <= 65535):
        raise invalid_field("bind", f"{bind!r} is not host:port, e.g. 127.0.0.1:8090 (port 0 takes any free one)")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback_host(host: str) -> bool:
    """Whether a numeric address, without brackets, is one of loopback. Names are not: who resolves them may lie."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def is_wildcard_host(host: str) -> bool:
    """Whether a numeric address, without brackets, is every address of the machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def resolve_bind(host: str) -> str:
    """The one numeric address that a host name stands for, IPv4 first.

    Listening on a name is listening on several addresses, of which some may fail without a word.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise invalid_field("bind", f"the host name {host!r} has no address on this machine") from error
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return str(found[0][4][0])


def ensure_free(host: str, port: int) -> None:
    """Raises what is wrong where no server could listen now, mostly PortTaken. `host` is numeric."""
    try:
        _probe(host, port)
    except OSError as error:
        raise _refusal(error, host, port) from error


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now, without finding the holder. `host` is numeric."""
    try:
        _probe(host, port)
    except OSError:
        return False
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """A port that no program holds now; prefer to bind port 0."""
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def announce_address(path: Path, address: str) -> None:
    """Writes `address` and a newline to `path` at once, so that a reader sees all or nothing."""
    remove_left(path.parent, f".{escape(path.name)}.*")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(f"{address}\n")
    partial.replace(path)


@dataclass(frozen=True, slots=True)
class Holder:
    """A process; name and command are empty where they can't be seen."""

    pid: int
    name: str = ""
    command: tuple[str, ...] = ()


def holder_of(port: int) -> Holder | None:
    """The process that listens on a TCP port of this machine; None for one of another user, which can't be seen."""
    import psutil  # 1 MB that only this question needs

    try:
        listeners = psutil.net_connections("tcp")
    except psutil.Error:
        return None
    pid = next(
        (c.pid for c in listeners if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port),
        None,
    )
    if pid is None:
        return None
    try:
        process = psutil.Process(pid)
        return Holder(pid, process.name(), tuple(process.cmdline()))
    except psutil.Error:
        return Holder(pid)


def _probe(host: str, port: int) -> None:
    """Binds as servers do. Raises OSError."""
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _refusal(error: OSError, host: str, port: int) -> LlorchError:
    match error.errno:
        case errno.EADDRINUSE:
            return PortTaken(host, port)
        case errno.EADDRNOTAVAIL:
            return invalid_field("bind", f"{host} is no address of this machine; 0.0.0.0 stands for all that it has")
        case errno.EACCES:
            return invalid_field("bind", f"port {port} needs root; take one above 1023")
        case _:
            return invalid_field("bind", f"can't listen on {join_address(host, port)}: {error.strerror}")


def _next_free(host: str, port: int) -> int:
    """The first free port of the next twenty, which is easy to remember; else any."""
    following = range(port + 1, min(port + 21, 65536))
    return next((candidate for candidate in following if is_free(host, candidate)), 0) or free_port(host)


def _holder(port: int) -> str:
    holder = holder_of(port)
    if holder is None:
        return "a process of another user"
    return f"{holder.name} (pid {holder.pid})" if holder.name else f"pid {holder.pid}"
