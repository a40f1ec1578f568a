"""Tables of the settings file that are not settings of a daemon: models, apps, assignments."""

import difflib
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from llorch.errors import LlorchError
from llorch.identifiers import check_id
from llorch.settings import SettingsError


class SettingsTable(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Table = TypeVar("Table", bound=SettingsTable)


class Heading:
    """A table in a file. `with heading: …` tells the user from which table a refusal comes."""

    def __init__(self, file: Path, heading: str) -> None:
        self._file = file
        self._heading = heading

    def __str__(self) -> str:
        return f"settings file, {self._heading}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LlorchError) and not isinstance(error, SettingsError):
            raise SettingsError(f"{self._file}, {self._heading}: {error.message}") from None

    def refuse(self, what: str) -> SettingsError:
        return SettingsError(f"{self._file}, {self._heading}: {what}")


def named_tables(
    file: Path | None, section: str, kind: type[Table], *, by_id: bool = True
) -> Iterator[tuple[Heading, str, Table]]:
    """All `[SECTION.NAME]`; any name will do unless it is to be an id. Raises SettingsError that names the file, the
    table and the key.
    """
    found = _section(file, section)
    if file is None or not found:
        return
    if not isinstance(found, dict):
        raise SettingsError(f"{file}: {section} has to consist of tables, [{section}.NAME]")
    for name, table in found.items():
        heading = Heading(file, f"[{section}.{name}]")
        if by_id:
            with heading:
                check_id(name, "the name")
        yield heading, name, _checked(heading, kind, table)


def listed_tables(file: Path | None, section: str, kind: type[Table]) -> Iterator[tuple[Heading, int, Table]]:
    """All `[[SECTION]]`, with their numbers from 1."""
    found = _section(file, section)
    if file is None or not found:
        return
    if not isinstance(found, list):
        raise SettingsError(f"{file}: {section} has to be a list of tables, [[{section}]]")
    for number, table in enumerate(found, 1):
        heading = Heading(file, f"[[{section}]] number {number}")
        yield heading, number, _checked(heading, kind, table)


def refuse_unknown_tables(file: Path, section: str, known: Sequence[str]) -> None:
    """Raises SettingsError for a `[SECTION.…]` that means nothing."""
    for name in _section(file, section) or {}:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {section}.{near[0]}?" if near else f"known are {', '.join(known)}"
            raise SettingsError(f"{file}: [{section}.{name}] means nothing; {hint}")


def _section(file: Path | None, section: str) -> Any:
    """Of `a.b`, what the section a has as b."""
    found: Any = {} if file is None else tomllib.loads(file.read_text())
    for name in section.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _checked(heading: Heading, kind: type[Table], table: object) -> Table:
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        raise heading.refuse(_first_fault(kind, error)) from None


def _first_fault(kind: type[SettingsTable], error: ValidationError) -> str:
    """An unknown key comes first: a key that is missing is often one that was mistyped."""
    faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in faults[0]["loc"])
    if faults[0]["type"] != "extra_forbidden":
        message = faults[0]["msg"].removeprefix("Value error, ")
        return f"{key}: {message[:1].lower()}{message[1:]}" if key else f"{message[:1].lower()}{message[1:]}"
    near = difflib.get_close_matches(key, kind.model_fields, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(kind.model_fields)}"
    return f"unknown key {key}; {hint}"
