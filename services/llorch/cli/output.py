"""How data is shown: tables for people, JSON for programs. Nothing else goes to stdout."""

import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llorch.cli.wrapping import in_lines

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with the field names of the HTTP API.")]

# Where no terminal sets a width, a row is a line.
_WIDTH_OF_PIPES = 250
_MIB_PER_GIB = 1024
_GAP = 2


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

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0), show_header=any(columns))
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


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[Sequence[str]]) -> None:
    """A table in which a row is a line, whatever the width: what a row has of notes stands at its end where there is
    room for that, as there always is in a pipe, else below it. On a narrow terminal long words of left columns are cut.
    """
    last = [", ".join(of_row) for of_row in notes]
    noted = [(*row, text) for row, text in zip(rows, last, strict=True)]
    with_notes = (*columns, "NOTES") if any(last) else columns
    width = terminal_width()
    if not any(last) or width is None or _natural_width(with_notes, noted) <= width:
        lines = _lines(with_notes, noted if any(last) else rows, width)
        below: Sequence[str] = [""] * len(rows)
    else:
        lines, below = _lines(columns, rows, width), last
    typer.echo(lines[0])
    for line, text in zip(lines[1:], below, strict=True):
        typer.echo(line)
        if text:
            typer.echo(_indented(text, width or _WIDTH_OF_PIPES))


def _natural_width(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    from rich.cells import cell_len

    cells = zip(*([name.removeprefix(">") for name in columns], *rows), strict=True)
    return sum(max(map(cell_len, column)) + _GAP for column in cells) - _GAP


def _lines(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """The header and one line per row; at most `width` wide, if there is one, but with all of their figures."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for name in columns:
        is_figure = name.startswith(">")
        table.add_column(name.removeprefix(">"), justify="right" if is_figure else "left", no_wrap=is_figure)
    for row in rows:
        # As text, not as markup: names may have square brackets.
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
    console = Console(width=width or _natural_width(columns, rows), highlight=False)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def _indented(text: str, width: int) -> str:
    return textwrap.fill(text, width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


def print_text(text: str) -> None:
    """Sentences, wrapped at words on a terminal."""
    width = terminal_width()
    typer.echo(text if width is None else textwrap.fill(text, width, break_on_hyphens=False))


def _console() -> "Console":
    from rich.console import Console

    return Console(width=terminal_width() or _WIDTH_OF_PIPES, highlight=False)


def terminal_width() -> int | None:
    """In columns; None where the output is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def gib(mib: int) -> str:
    return f"{mib / _MIB_PER_GIB:.1f}"


def note_sentence(text: str) -> None:
    """A long remark: wrapped at words on a terminal, else a line of its own."""
    note(text if terminal_width() is None else in_lines(text))


def note(text: str) -> None:
    """A remark for the person at the terminal."""
    typer.echo(text, err=True)
