"""What an answer has to look like, from the command line: a schema or grammar in a file, or a schema as it is."""

from pathlib import Path

from llorch.errors import invalid_field


def schema_text(given: str | None) -> str | None:
    """A JSON schema begins with a brace, and no file that a person means does."""
    if given is None or given.lstrip().startswith("{"):
        return given
    return _read("--json-schema", Path(given))


def grammar_text(file: Path | None) -> str | None:
    return None if file is None else _read("--grammar", file)


def _read(flag: str, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise invalid_field(flag, f"{file} is not text in UTF-8") from error
    except OSError as error:
        raise invalid_field(flag, f"{file} can't be read: {error.strerror}; name a file that is there") from error
