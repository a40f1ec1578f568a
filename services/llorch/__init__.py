"""llama-orch: what all daemons share, the Python SDK, and the command line.

The SDK's names are here, and come when they are used: a daemon that imports `llorch` does not pay for them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llorch.errors import LlorchError as LlorchError
    from llorch.sdk.async_client import AsyncClient as AsyncClient
    from llorch.sdk.client import Client as Client
    from llorch.sdk.events import End as End
    from llorch.sdk.events import Event as Event
    from llorch.sdk.events import Failed as Failed
    from llorch.sdk.events import Placed as Placed
    from llorch.sdk.events import Started as Started
    from llorch.sdk.events import Tokens as Tokens
    from llorch.sdk.failures import TaskFailed as TaskFailed
    from llorch.sdk.failures import Unreachable as Unreachable

_HOME = {
    "LlorchError": "llorch.errors",
    "AsyncClient": "llorch.sdk.async_client",
    "Client": "llorch.sdk.client",
    "End": "llorch.sdk.events",
    "Event": "llorch.sdk.events",
    "Failed": "llorch.sdk.events",
    "Placed": "llorch.sdk.events",
    "Started": "llorch.sdk.events",
    "Tokens": "llorch.sdk.events",
    "TaskFailed": "llorch.sdk.failures",
    "Unreachable": "llorch.sdk.failures",
}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
