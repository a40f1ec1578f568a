"""Checks values against a table of options; the orchestrator at admission, the worker before native code."""

from collections.abc import Collection, Mapping
from typing import Any

from llorch.errors import invalid_field
from llorch.options.option import CHARACTERS, Option, Table


def check_said(path: str, table: Table, said: Mapping[str, Any]) -> None:
    """Raises InvalidArgument that names the first field that can't be right. None is a value that is absent."""
    for name, option in table.items():
        value = said.get(name)
        if value is not None:
            check_value(f"{path}.{name}" if path else name, option, value)


def check_value(field: str, option: Option, value: Any) -> None:
    if isinstance(value, Mapping):
        check_entries(field, option, len(value))
        for key, item in value.items():
            _check_one(f"{field}[{key}]", option, item)
    elif isinstance(value, Collection) and not isinstance(value, str):
        check_entries(field, option, len(value))
        for number, item in enumerate(value):
            _check_one(f"{field}[{number}]", option, item)
    else:
        _check_one(field, option, value)


def check_entries(field: str, option: Option, count: int) -> None:
    """Of a list or map, before anything looks at what is in it."""
    if option.entries is not None and count not in option.entries:
        raise invalid_field(field, f"has {count} entries; it has to have {option.entries}")


def _check_one(field: str, option: Option, value: Any) -> None:
    if option.words and value not in option.words:
        raise invalid_field(field, f"is {str(value)[:80]!r}; it has to be one of: {', '.join(option.words)}")
    if option.allowed is None:
        return
    if isinstance(value, str):
        size = len(value) if option.unit == CHARACTERS else len(value.encode())
        if size not in option.allowed:
            raise invalid_field(field, f"has {size} {option.unit}; it has to have {option.range_words}")
    elif value not in option.allowed:
        raise invalid_field(field, f"is {value:.10g}; it has to be {option.range_words}")
