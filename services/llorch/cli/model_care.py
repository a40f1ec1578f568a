"""`llorch models rm`, `retire`, `activate`, `verify`: what becomes of a model that is there."""

from typing import TYPE_CHECKING, Annotated

import typer

from llorch.cli import exit_codes
from llorch.cli.connecting import Address, Token, ask
from llorch.cli.models import app
from llorch.cli.output import AsJson, as_data, note, print_json, print_table
from llorch.errors import NotFound

__all__ = ["app"]
"""`llorch models`, whole with the commands of this file."""

if TYPE_CHECKING:
    from llama_orch.v2 import catalog_service_pb2
    from llorch.sdk.async_client import AsyncClient

Name = Annotated[str, typer.Argument(help="Name or alias.")]


@app.command()
def rm(name: Name, *, address: Address = None, token: Token = None) -> None:
    """Take a model that was added out of the catalog. Its file stays."""
    is_still_there, warnings = ask(address, token, lambda client: _remove(client, name))
    note(f"what was added as {name} is taken away" if is_still_there else f"{name} is no longer in the catalog")
    for warning in warnings:
        note(warning)


@app.command()
def retire(name: Name, *, address: Address = None, token: Token = None) -> None:
    """Give a model no new tasks; what runs may finish."""
    ask(address, token, lambda client: client.retire_model(name))
    note(f"{name} gets no new tasks; `llorch models activate {name}` takes that back")


@app.command()
def activate(name: Name, *, address: Address = None, token: Token = None) -> None:
    """Give a retired model tasks again."""
    ask(address, token, lambda client: client.activate_model(name))
    note(f"{name} gets tasks")


@app.command()
def verify(name: Name, *, address: Address = None, token: Token = None, json: AsJson = False) -> None:
    """Read a model's files again on every machine that holds them, and compare their digests."""
    found = ask(address, token, lambda client: client.verify_model(name))
    if json:
        print_json({"nodes": [as_data(node) for node in found]})
    else:
        print_table(("NODE", "FILE", "SHA-256"), [_row(node) for node in found])
    if not all(node.ok for node in found):
        raise typer.Exit(exit_codes.FAILED)


async def _remove(client: "AsyncClient", name: str) -> tuple[bool, list[str]]:
    """Whether another description keeps the model in the catalog, and what else stays."""
    warnings = await client.delete_model(name)
    try:
        await client.model(name)
    except NotFound:
        return False, warnings
    return True, warnings


def _row(node: "catalog_service_pb2.NodeVerification") -> tuple[str, ...]:
    return node.node_id, "right" if node.ok else node.message, node.digest
