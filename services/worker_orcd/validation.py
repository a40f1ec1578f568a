"""Which runs can be right, whatever the engine's state is. Pure.

The orchestrator has checked its clients' numbers; the worker checks again, because what it hands to native
code has to be right whoever calls.
"""

import math
from collections.abc import Sequence

from llorch.errors import InvalidArgument, Reason, invalid_field
from worker_orcd.engine_info import Capabilities
from worker_orcd.log_entry import LogEntry
from worker_orcd.run_spec import RunSpec, Sampling

MAX_TOKENS = 1_048_576
MAX_TOP_K = 1_000_000
MAX_TEMPERATURE = 100.0
MAX_CHOICES = 16
MAX_STOPS = 64
MAX_STOP_BYTES = 1024


def check_run(spec: RunSpec, prefix: Sequence[LogEntry], capabilities: Capabilities) -> None:
    """Raises InvalidArgument that names the first field that can't be right."""
    refuse_undeclared(spec, capabilities)
    _check_input(spec)
    _check_length(spec)
    _check_sampling(spec.sampling)
    for entry in prefix:
        if entry.choice >= spec.choices:
            raise invalid_field("prefix", f"has an entry of choice {entry.choice}, but n is {spec.choices}")


def refuse_undeclared(spec: RunSpec, capabilities: Capabilities) -> None:
    """An option that the engine does not declare is refused by name, never ignored."""
    declared = capabilities.declared()
    for demand in spec.demands:
        if demand.capability not in declared:
            raise InvalidArgument(
                Reason.UNSUPPORTED_OPTION,
                f"{demand.field}: this model's engine has no support for {demand.capability}",
                metadata={"field": demand.field, "capability": demand.capability},
            )


def _check_input(spec: RunSpec) -> None:
    if spec.messages:
        if not any(message.content for message in spec.messages):
            raise invalid_field("generate.chat.messages", "at least one message needs text")
    elif not spec.prompt:
        raise invalid_field("generate.prompt", "must not be empty")


def _check_length(spec: RunSpec) -> None:
    if spec.max_tokens is not None:
        _check_range("generate.max_tokens", spec.max_tokens, 1, MAX_TOKENS)
    _check_range("generate.n", spec.choices, 1, MAX_CHOICES)
    if spec.remaining_ms is not None and spec.remaining_ms < 1:
        raise invalid_field("remaining_ms", "must be at least 1")
    _check_range("generate.stop: the number of strings", len(spec.stop), 0, MAX_STOPS)
    _check_range("generate.stop_token_ids: the number of ids", len(spec.stop_token_ids), 0, MAX_STOPS)
    for number, stop in enumerate(spec.stop):
        _check_range(f"generate.stop[{number}]: its length in bytes", len(stop.encode()), 1, MAX_STOP_BYTES)


def _check_sampling(sampling: Sampling) -> None:
    _check_range("generate.sampling.temperature", sampling.temperature, 0.0, MAX_TEMPERATURE)
    _check_range("generate.sampling.top_k", sampling.top_k, 0, MAX_TOP_K)
    _check_range("generate.sampling.top_p", sampling.top_p, 0.0, 1.0)
    if sampling.top_p == 0:
        raise invalid_field("generate.sampling.top_p", "must be above 0, up to 1")
    _check_range("generate.sampling.min_p", sampling.min_p, 0.0, 1.0)


def _check_range(field: str, value: float, low: float, high: float) -> None:
    """Refuses NaN too: it is not within any range."""
    if not (math.isfinite(value) and low <= value <= high):
        raise invalid_field(field, f"is {value}; it has to be from {low} to {high}")
