"""How data is shown: tables for people, JSON for programs. Nothing else goes to stdout."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with the field names of the HTTP API.")]

# Where no terminal sets a width, a row is a line.
_WIDTH_OF_PIPES = 250
_MIB_PER_GIB = 1024


def print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def as_data(message: "Message") -> Any:
    """A message of the contract as the HTTP API would answer it."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A column whose name begins with `>` is aligned to the right. Without names there is no header."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), show_header=any(columns))
    for name in columns:
        align: Literal["left", "right"] = "right" if name.startswith(">") else "left"
        table.add_column(name.removeprefix(">"), justify=align, overflow="fold")
    for row in rows:
        # As text, not as markup: names may have square brackets.
        table.add_row(*(Text(cell) for cell in row))
    console = _console()
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())


def print_text(text: str) -> None:
    """Sentences, wrapped at words on a terminal."""
    console = _console()
    with console.capture() as captured:
        console.print(text, markup=False, soft_wrap=not console.is_terminal)
    typer.echo(captured.get().rstrip())


def _console() -> "Console":
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDTH_OF_PIPES, highlight=False)


def gib(mib: int) -> str:
    return f"{mib / _MIB_PER_GIB:.1f}"


def note(text: str) -> None:
    """A remark for the person at the terminal."""
    typer.echo(text, err=True)
