"""`llorch version`: of this program, and of the orchestrator if one answers."""

import platform

from llorch.cli.connecting import Address, Token, ask
from llorch.cli.output import AsJson, print_json
from llorch.errors import LlorchError

_PATIENCE_S = 2.0


def version(*, address: Address = None, token: Token = None, json: AsJson = False) -> None:
    """Show the version of this program, and of the orchestrator if one answers."""
    from importlib.metadata import version as version_of

    import typer

    mine = version_of("llama-orch")
    try:
        theirs = ask(address, token, lambda client: client.state(), timeout_s=_PATIENCE_S).version
        found = f"orchestrator {theirs}"
    except LlorchError as error:
        theirs, found = None, error.message
    if json:
        print_json({"version": mine, "python": platform.python_version(), "orchestrator_version": theirs})
    else:
        typer.echo(f"llorch {mine} (Python {platform.python_version()})\n{found}")
