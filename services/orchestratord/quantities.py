"""Times and sizes of the settings file: `15m`, `11GiB`."""

import re
from collections.abc import Callable
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, WithJsonSchema

from llorch.quantities import SIZE, TIME, mib, seconds

T = TypeVar("T")


def _of_text(read: Callable[[str], T]) -> BeforeValidator:
    """A number without a unit is ambiguous; it is refused with the message of `read`."""
    return BeforeValidator(lambda value: read(value if isinstance(value, str) else ""))


def _in_words(written: re.Pattern[str]) -> WithJsonSchema:
    """As JSON Schema has it, whose patterns know no named groups."""
    pattern = written.pattern.replace("?P<amount>", "?:").replace("?P<unit>", "?:")
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


Seconds = Annotated[float, _of_text(seconds), _in_words(TIME)]
MiB = Annotated[int, _of_text(mib), _in_words(SIZE)]
