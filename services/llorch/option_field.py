"""An option of the contract as a field of a settings class."""

from math import inf
from typing import Any

from pydantic import Field

from llorch.options.option import Option


def option_field(default: Any, option: Option) -> Any:
    """With the option's range and words. Without a default of its own, what holds instead is a part of the words."""
    given: dict[str, Any] = {}
    if option.allowed is not None:
        given["gt" if option.allowed.open_low else "ge"] = option.allowed.low
        if option.allowed.high < inf:
            given["le"] = option.allowed.high
    if option.words:
        given["json_schema_extra"] = {"enum": list(option.words)}
    is_said = default not in (None, "")
    return Field(default, description=option.meaning if is_said else option.help, **given)
