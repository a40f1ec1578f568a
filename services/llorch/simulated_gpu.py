"""A GPU that exists in words only: a name and how much memory it has."""

import re
from dataclasses import dataclass

from llorch.errors import invalid_field

_FORM = re.compile(r"^(?P<name>.+):\s*(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>GiB|MiB|GB|MB|G|M)$")
_MIB_PER_UNIT = {"GiB": 1024.0, "G": 1024.0, "MiB": 1.0, "M": 1.0, "GB": 1e9 / 2**20, "MB": 1e6 / 2**20}


@dataclass(frozen=True, slots=True)
class SimulatedGpu:
    name: str
    memory_mib: int


def parse_simulated_gpu(text: str, field: str = "simulate_gpu") -> SimulatedGpu:
    """Reads `NAME:SIZE`, e.g. `RTX 3090:24GiB`. Raises InvalidArgument that names the field."""
    match = _FORM.match(text.strip())
    if match is None:
        raise invalid_field(field, f'"{text}" is not NAME:SIZE, for example "RTX 3090:24GiB"')
    memory_mib = int(float(match["amount"]) * _MIB_PER_UNIT[match["unit"]])
    if memory_mib < 1:
        raise invalid_field(field, f'"{text}" has no memory; give at least 1MiB')
    return SimulatedGpu(match["name"].strip(), memory_mib)
