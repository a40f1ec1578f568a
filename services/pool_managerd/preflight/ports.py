"""Whether the pool manager and its workers can listen."""

from collections.abc import Sequence
from itertools import pairwise

from llorch.errors import LlorchError
from llorch.ports import PortTaken, ensure_free, holder_of, is_free, resolve_bind, split_address
from pool_managerd.preflight.finding import Finding, failed, ok, warning
from pool_managerd.settings import PoolManagerSettings
from pool_managerd.workers.ports import parse_worker_ports

_FEW = 8


def find_port(settings: PoolManagerSettings) -> Finding:
    try:
        host, port = split_address(settings.bind)
        ensure_free(resolve_bind(host), port)
    except PortTaken as error:
        return _taken(error, settings.bind)
    except LlorchError as error:
        return failed("port", error.message, "correct --bind")
    return ok("port", f"{settings.bind} is free")


def find_worker_ports(settings: PoolManagerSettings) -> Finding:
    ports = parse_worker_ports(settings.worker_ports)
    if ports is None:
        return ok("workers", "listen on any free port")
    try:
        host = resolve_bind(split_address(settings.bind)[0])
    except LlorchError as error:
        return failed("workers", error.message, "correct --bind")
    free = sum(is_free(host, port) for port in range(ports.first, ports.last + 1))
    found = f"{free} of {ports.last - ports.first + 1} ports free in {ports}"
    fix = 'set another range with worker_ports, or "any"'
    if free == 0:
        return failed("workers", found, fix)
    return warning("workers", found, fix) if free < _FEW else ok("workers", found)


def _taken(taken: PortTaken, bind: str) -> Finding:
    holder = holder_of(int(taken.metadata["port"]))
    if holder is None:
        return warning(
            "port",
            f"{bind} is taken by a process of another user",
            "if that is the pool manager's own service, all is well; else end it, or set another one with --bind",
        )
    if _is_pool_manager(holder.command):
        return ok("port", f"{bind}, where a pool manager runs (pid {holder.pid})")
    return failed("port", taken.taken, taken.remedy)


def _is_pool_manager(command: Sequence[str]) -> bool:
    """`python -m pool_managerd …`, or the script `pool-managerd`, by itself or after its interpreter."""
    return ("-m", "pool_managerd") in pairwise(command) or any(
        word.rpartition("/")[2] == "pool-managerd" for word in command[:2]
    )
