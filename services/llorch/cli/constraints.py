"""What an answer has to look like, from the command line: a schema or grammar in a file, or a schema as it is."""

from pathlib import Path

from llorch.errors import invalid_field


def output_constraint(json_schema: str | None, grammar: Path | None) -> tuple[str | None, str | None]:
    """The texts of the schema and of the grammar. A schema begins with a brace; anything else is the name of a file."""
    if grammar is None:
        is_file = json_schema is not None and not json_schema.lstrip().startswith("{")
        return _read("--json-schema", Path(json_schema or "")) if is_file else json_schema, None
    if json_schema is not None:
        raise invalid_field("--grammar", "goes without --json-schema; give one of them")
    return None, _read("--grammar", grammar)


def _read(flag: str, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise invalid_field(flag, f"{file} is not text in UTF-8") from error
    except OSError as error:
        raise invalid_field(flag, f"{file} can't be read: {error.strerror}; name a file that is there") from error
