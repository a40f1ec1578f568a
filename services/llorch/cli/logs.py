"""`llorch logs WORKER`: what a worker writes, on whichever machine it runs."""

import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from llorch.cli.connecting import Address, Token, ask
from llorch.cli.terminal_text import terminal_text
from llorch.cli.worker_names import find_worker, known_workers
from llorch.errors import NotFound
from llorch.log_lines import readable

if TYPE_CHECKING:
    from llorch.sdk.async_client import AsyncClient


def logs(
    worker: Annotated[
        str,
        typer.Argument(help="A model that is loaded, or a worker as `llorch ps` shows it; an ended one by its id."),
    ],
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until the worker ends.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, max=10_000, help="Begin so many lines before the end.")
    ] = 100,
    address: Address = None,
    token: Token = None,
) -> None:
    """Show the log of a worker: the last lines, or with -f all that comes. Ctrl-C ends it."""

    async def show(client: "AsyncClient") -> None:
        worker_id = await _id_of(client, worker)
        async with aclosing(client.worker_log(worker_id, tail_lines=lines, follow=follow)) as log:
            async for line in log:
                _write(line)

    ask(address, token, show)


async def _id_of(client: "AsyncClient", name: str) -> str:
    """An alias of a model is looked up only where nothing else fits."""
    known = known_workers(await client.state())
    try:
        return find_worker(name, known)
    except NotFound:
        try:
            model = (await client.model(name)).spec.name
        except NotFound:
            model = name
        return find_worker(model, known)


def _write(line: str) -> None:
    """At once, so that `-f` can be piped; JSON and control characters only to what is no terminal."""
    sys.stdout.write((terminal_text(readable(line)) if sys.stdout.isatty() else line) + "\n")
    sys.stdout.flush()
