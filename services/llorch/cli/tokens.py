"""`llorch tokens MODEL PROMPT`: how long a prompt is for a model."""

from typing import TYPE_CHECKING, Annotated

import typer

from llorch.cli.connecting import Address, Token, ask
from llorch.cli.output import AsJson, print_json
from llorch.cli.prompt_argument import said
from llorch.options.generation import GENERATION

if TYPE_CHECKING:
    from llorch.sdk.tokens import TokenCount


def tokens(
    model: Annotated[str, typer.Argument(help="Name or alias of a model; `llorch models` lists them.")],
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads it from stdin.")],
    *,
    system: Annotated[str | None, typer.Option(help="Instructions that go before the prompt.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Count the prompt as it is, without chat template.")] = False,
    control_tokens: Annotated[
        bool, typer.Option("--control-tokens", help=f"With --raw: {GENERATION['control_tokens'].meaning}")
    ] = False,
    address: Address = None,
    token: Token = None,
    json: AsJson = False,
) -> None:
    """Count the tokens that a prompt has for a model. Nothing is loaded for it."""
    text = said(prompt, alone=not (system or raw))
    counted = ask(
        address,
        token,
        lambda client: client.count_tokens(model, text, system=system, raw=raw, control_tokens=control_tokens),
    )
    if json:
        print_json({"tokens_in": counted.tokens_in, "context": counted.context})
    else:
        typer.echo(_line(counted))


def _line(counted: "TokenCount") -> str:
    of = "" if counted.context is None else f" of {counted.context}"
    return f"{counted.tokens_in}{of} tokens"
