"""Whether the daemons can run here, or only the commands that talk to them."""

from importlib.util import find_spec

from llorch.errors import FailedPrecondition, Reason

_NEEDED = ("grpc_health", "grpc_reflection", "h2", "psutil", "structlog", "uvloop")


def require_server_packages(command: str) -> None:
    """Raises `FailedPrecondition` that says how to get what is missing."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise FailedPrecondition(
            Reason.NOT_IMPLEMENTED,
            f"`llorch {command}` needs packages that are not installed ({', '.join(missing)}): "
            "pip install 'llama-orch[server,llamacpp,gpu]'",
        )
