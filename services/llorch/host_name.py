"""The name in a Host header. Pure."""

import ipaddress
from urllib.parse import urlsplit


def host_name(host: str) -> str | None:
    """Of `name`, `name:port`, `1.2.3.4:port` or `[::1]:port`, in lower case; None where it is none of these."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if parts.netloc != host or parts.username is not None or not parts.hostname:
        return None
    return parts.hostname.rstrip(".")


def is_numeric_host(name: str) -> bool:
    """An address is no name that an attacker could point somewhere."""
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
