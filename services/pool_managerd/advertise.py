"""The host name or address by which other machines reach this one."""

import ipaddress
import socket

from llorch.errors import invalid_field
from llorch.ports import split_address


def advertised_host(bound: str, orchestrator: str, wanted: str) -> str:
    """`wanted` if it was set; else what we listen on; for "everywhere" the address used toward the orchestrator."""
    host, _ = split_address(bound)
    if wanted:
        return wanted
    if _is_everywhere(host):
        return _address_toward(orchestrator)
    if ipaddress.ip_address(host).is_loopback and _is_elsewhere(orchestrator):
        raise invalid_field(
            "bind",
            f"the orchestrator ({orchestrator}) is on another machine and can't reach {host}; listen on an address "
            'that it reaches, such as bind = "0.0.0.0:9200" with a token, or say by advertise_host what leads here',
        )
    return host


def local_address(bound: str) -> str:
    """Where a process of this machine reaches what listens at `bound`."""
    host, port = split_address(bound)
    if not _is_everywhere(host):
        return bound
    return f"[::1]:{port}" if ":" in host else f"127.0.0.1:{port}"


def _is_elsewhere(orchestrator: str) -> bool:
    """False for a name that does not resolve yet: the link reports that, and the name may resolve later."""
    try:
        own, far = _way_to(orchestrator)
    except OSError:
        return False
    return own != far and not ipaddress.ip_address(far).is_loopback


def _is_everywhere(host: str) -> bool:
    return ipaddress.ip_address(host).is_unspecified


def _address_toward(orchestrator: str) -> str:
    try:
        return _way_to(orchestrator)[0]
    except OSError as error:
        raise invalid_field(
            "advertise_host",
            f"the way to the orchestrator ({orchestrator}) is unknown ({error.strerror}), so say under which "
            "address this machine is reached",
        ) from error


def _way_to(orchestrator: str) -> tuple[str, str]:
    """Both ends of it, the same address if the orchestrator is on this machine.

    The kernel's routing table decides; connecting a datagram socket looks it up and sends nothing.
    """
    host, port = split_address(orchestrator)
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0]), str(probe.getpeername()[0])
