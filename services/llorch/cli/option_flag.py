"""A flag for an option of the contract."""

from math import inf
from typing import Any

import typer

from llorch.options.option import Option


def option_flag(option: Option, *names: str, metavar: str | None = None) -> Any:
    """With the range of a number, and the option's words as help. The orchestrator checks what has no range here."""
    allowed = None if option.entries else option.allowed
    return typer.Option(
        *names,
        metavar=metavar,
        min=None if allowed is None else allowed.low,
        max=None if allowed is None or allowed.high == inf else allowed.high,
        help=option.help,
        show_default=False,
    )
