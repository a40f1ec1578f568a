"""How a command reaches the orchestrator: the options that all have, and the client they give."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from llorch.cli.waking import woken_by_signals

if TYPE_CHECKING:
    from llorch.sdk.async_client import AsyncClient

T = TypeVar("T")

Address = Annotated[
    str | None,
    typer.Option(
        help="Orchestrator, host:port. Else LLORCH_ADDRESS, else 127.0.0.1:8090.", show_default=False, metavar="ADDRESS"
    ),
]
Token = Annotated[
    str | None,
    typer.Option(help="Bearer token to show. Better in LLORCH_API_TOKEN.", show_default=False, metavar="TOKEN"),
]


def ask(
    address: str | None,
    token: str | None,
    question: "Callable[[AsyncClient], Awaitable[T]]",
    *,
    timeout_s: float = 10.0,
    reconnect_for_s: float = 5.0,
) -> T:
    """Runs `question` with a client, in an event loop of its own. Ctrl-C cancels it and raises KeyboardInterrupt."""
    from llorch.sdk.async_client import AsyncClient

    async def connected() -> T:
        with woken_by_signals():
            async with AsyncClient(address, token, timeout_s=timeout_s, reconnect_for_s=reconnect_for_s) as client:
                return await question(client)

    return asyncio.run(connected())
