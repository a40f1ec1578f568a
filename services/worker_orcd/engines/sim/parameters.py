"""What the simulated engine costs and how it misbehaves. Pure."""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from typing import Any

from llorch.errors import invalid_field


class FaultKind(StrEnum):
    ABORT = "abort"
    """The process ends by SIGABRT, as native code does."""
    EXIT = "exit"
    """The process ends with `exit_code`."""
    HANG = "hang"
    """No further step, for any run, and cancels have no effect: a stuck engine."""
    SLOW = "slow"
    """The step takes `delay_s` longer."""
    FAIL_RUN = "fail_run"
    """The run ends with ENGINE_FAILED; the others go on."""
    REFUSE = "refuse"
    """The run is refused when it is submitted."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Happens just before the token with output index `at_token` of a run whose prompt contains `marker`.

    The empty marker is in every prompt. The index counts over all attempts, so that a run that is resumed
    meets the same fault at the same place.
    """

    kind: FaultKind
    at_token: int = 0
    marker: str = ""
    exit_code: int = 70
    delay_s: float = 1.0


@dataclass(frozen=True, slots=True)
class SimParameters:
    """Speeds in tokens per second; 0 costs no time.

    `decode_tokens_per_s` is the speed of one run alone; each further run in a step makes the step longer by
    the share `batch_slowdown` (0.02: a step of 32 runs takes 1.62 times as long). Prompts are evaluated one
    after the other at `prefill_tokens_per_s` and do not slow decoding. `eos_after` is the length of every
    answer, in tokens; without it answers end at `max_tokens` or with the context. `fail_load` is the reason
    for which loading fails. `device` is the card that the fingerprint names: receipts of two are told apart by it.
    """

    prefill_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0
    batch_slowdown: float = 0.0
    load_s: float = 0.0
    vram_mib: int = 0
    eos_after: int | None = None
    fail_load: str = ""
    device: str = ""
    faults: tuple[Fault, ...] = ()

    def prefill_s(self, tokens: int) -> float:
        return tokens / self.prefill_tokens_per_s if self.prefill_tokens_per_s else 0.0

    def step_s(self, runs: int) -> float:
        """How long a decode step of this many runs takes."""
        if not self.decode_tokens_per_s:
            return 0.0
        return (1 + self.batch_slowdown * (runs - 1)) / self.decode_tokens_per_s


def parse_parameters(text: str) -> SimParameters:
    """Parameters from a JSON object; names what is wrong with it."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise invalid_field("sim", f"is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise invalid_field("sim", "has to be a JSON object")
    faults = values.pop("faults", [])
    if not isinstance(faults, list):
        raise invalid_field("sim.faults", "has to be a list")
    known = _checked(values, SimParameters, "sim")
    return SimParameters(**known, faults=tuple(_fault(value, f"sim.faults[{at}]") for at, value in enumerate(faults)))


def _fault(value: object, path: str) -> Fault:
    if not isinstance(value, dict):
        raise invalid_field(path, "has to be an object")
    kind = value.pop("kind", None)
    if kind not in list(FaultKind):
        raise invalid_field(f"{path}.kind", f"has to be one of {', '.join(FaultKind)}")
    return Fault(FaultKind(kind), **_checked(value, Fault, path))


def _checked(values: Mapping[str, object], into: type, path: str) -> dict[str, Any]:
    """The values, if each has a field of the type of the field's default and is not negative."""
    defaults = {field.name: field.default for field in fields(into) if field.default is not MISSING}
    for name, value in values.items():
        if name not in defaults or name == "faults":
            raise invalid_field(f"{path}.{name}", f"is not known; there are {', '.join(sorted(defaults))}")
        if isinstance(defaults[name], str):
            if not isinstance(value, str):
                raise invalid_field(f"{path}.{name}", "has to be a text")
        elif not _is_amount(value, whole=not isinstance(defaults[name], float)):
            raise invalid_field(f"{path}.{name}", f"is {value!r}; it has to be a number from 0")
    return dict(values)


def _is_amount(value: object, *, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value >= 0 and (not whole or isinstance(value, int))
