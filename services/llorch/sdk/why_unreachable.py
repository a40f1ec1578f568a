"""Why no orchestrator answers at an address, and what the user can do about it."""

import grpc

from llorch.errors import DeadlineExceeded, LlorchError
from llorch.ports import is_free, is_loopback_host, split_address

_UNRESOLVED = "resolving "
_REFUSED = "connection refused"
"""In the texts of the pinned gRPC. Where they are others, less is told."""

_START_ONE = "start one with `llorch up`"


def why_unreachable(address: str, error: LlorchError) -> str:
    """`error` is how the call failed on its way. Asks this machine's ports alone, and no name server."""
    host, port = split_address(address)
    here = _of_this_machine(host)
    if here and all(is_free(one, port) for one in here):
        return _START_ONE
    if isinstance(error, DeadlineExceeded):
        where = "" if here else ", or the network or a firewall drops what is sent there"
        return f"what listens there does not answer in time; it hangs, or has too much to do{where}"
    if here:
        return (
            "another program listens there, or one that has just ended; `llorch doctor` says which, and --address or "
            "LLORCH_ADDRESS name another address"
        )
    if _UNRESOLVED in _as_the_library_says(error):
        return f"{host} is no name that this machine can resolve; correct --address or LLORCH_ADDRESS"
    refused = "nothing listens at that port; " if _REFUSED in _as_the_library_says(error) else ""
    return (
        f"{refused}see that it runs on that machine and listens beyond loopback (`bind`), that the port is right, and "
        "that no firewall is between"
    )


def _of_this_machine(host: str) -> list[str]:
    """The addresses of loopback that it stands for."""
    if host == "localhost":
        return ["127.0.0.1", "::1"]
    return [host] if is_loopback_host(host) else []


def _as_the_library_says(error: LlorchError) -> str:
    cause = error.__cause__
    return (cause.details() or "").lower() if isinstance(cause, grpc.aio.AioRpcError) else ""
