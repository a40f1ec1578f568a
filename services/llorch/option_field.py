"""An option of the contract as a field of a settings class."""

from dataclasses import fields
from math import inf
from typing import Any

from pydantic import Field

from llorch.options.option import BYTES, CHARACTERS, Option, Range, Table


def option_field(default: Any, option: Option) -> Any:
    """With the option's range and words. Without a default of its own, what holds instead is a part of the words."""
    given = _limits(option.allowed, option.unit) if option.allowed else {}
    if option.words:
        given["json_schema_extra"] = {"enum": list(option.words)}
    is_said = default not in (None, "")
    return Field(default, description=option.meaning if is_said else option.help, **given)


def option_fields(options: type[Any], table: Table) -> dict[str, Any]:
    """The fields of a dataclass that are options, as pydantic's `create_model` takes them."""
    return {each.name: (each.type, option_field(each.default, table[each.name])) for each in fields(options)}


def _limits(allowed: Range, unit: str) -> dict[str, Any]:
    """Raises TypeError for the length of a text in bytes, which pydantic can't check."""
    if unit == BYTES:
        raise TypeError("a text whose length counts in bytes has to be checked by itself")
    low, high = ("min_length", "max_length") if unit == CHARACTERS else ("gt" if allowed.open_low else "ge", "le")
    return {low: allowed.low, **({high: allowed.high} if allowed.high < inf else {})}
