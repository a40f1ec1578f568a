"""Under which host other machines reach this one."""

import ipaddress
import socket

from llorch.errors import invalid_field
from llorch.ports import split_address


def advertised_host(bound: str, orchestrator: str, wanted: str) -> str:
    """`wanted` if it was set; else what we listen on; for "everywhere" the address used toward the orchestrator."""
    host, _ = split_address(bound)
    if wanted:
        return wanted
    return _address_toward(orchestrator) if _is_everywhere(host) else host


def local_address(bound: str) -> str:
    """Where a process of this machine reaches what listens at `bound`."""
    host, port = split_address(bound)
    if not _is_everywhere(host):
        return bound
    return f"[::1]:{port}" if ":" in host else f"127.0.0.1:{port}"


def _is_everywhere(host: str) -> bool:
    return ipaddress.ip_address(host).is_unspecified


def _address_toward(orchestrator: str) -> str:
    """The routing table knows; connecting a datagram socket asks it and sends nothing."""
    host, port = split_address(orchestrator)
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError as exc:
        raise invalid_field(
            "advertise_host",
            f"the way to the orchestrator ({orchestrator}) is unknown ({exc.strerror}), so say under which "
            "address this machine is reached",
        ) from exc
