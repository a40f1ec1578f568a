"""Times and sizes as people write them: `15m`, `11GiB`. Raises ValueError that says what would be right."""

import re

TIME = re.compile(r"(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|m|h|d)")
SIZE = re.compile(r"(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>MiB|GiB|MB|GB)")

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_MIB = {"MiB": 1.0, "GiB": 1024.0, "MB": 1e6 / 2**20, "GB": 1e9 / 2**20}


def seconds(text: str) -> float:
    match = TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError('has to be a time with its unit, such as "15m", "90s" or "2h"')
    return float(match["amount"]) * _SECONDS[match["unit"]]


def mib(text: str) -> int:
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError('has to be a size with its unit, such as "11GiB" or "512MiB"')
    return round(float(match["amount"]) * _MIB[match["unit"]])
