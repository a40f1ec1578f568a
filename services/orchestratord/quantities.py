"""Times and sizes as people write them in the settings file: `15m`, `11GiB`."""

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

_TIME = re.compile(r"(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZE = re.compile(r"(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>MiB|GiB|MB|GB)")
_MIB = {"MiB": 1.0, "GiB": 1024.0, "MB": 1e6 / 2**20, "GB": 1e9 / 2**20}


def _seconds(value: object) -> float:
    match = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError('has to be a time with its unit, such as "15m", "90s" or "2h"')
    return float(match["amount"]) * _SECONDS[match["unit"]]


def _mib(value: object) -> int:
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError('has to be a size with its unit, such as "11GiB" or "512MiB"')
    return round(float(match["amount"]) * _MIB[match["unit"]])


def _in_words(written: re.Pattern[str]) -> WithJsonSchema:
    """As JSON Schema has it, whose patterns know no named groups."""
    pattern = written.pattern.replace("?P<amount>", "?:").replace("?P<unit>", "?:")
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


Seconds = Annotated[float, BeforeValidator(_seconds), _in_words(_TIME)]
MiB = Annotated[int, BeforeValidator(_mib), _in_words(_SIZE)]
