"""Which runs can be right, whatever the engine's state is. Pure.

The orchestrator has checked its clients' numbers; the worker checks again, because what it hands to native
code has to be right whoever calls.
"""

import math
from collections.abc import Sequence

from llorch.errors import FailedPrecondition, InvalidArgument, Reason, invalid_field
from llorch.request_limits import MAX_EMBED_INPUTS
from worker_orcd.chat.tools import check_tools
from worker_orcd.engine_info import Capabilities
from worker_orcd.log_entry import LogEntry
from worker_orcd.run_spec import RunSpec, Sampling

MAX_TOKENS = 1_048_576
MAX_TOP_K = 1_000_000
MAX_TEMPERATURE = 100.0
MAX_CHOICES = 16
MAX_TOP_LOGPROBS = 20
MAX_BIASES = 1024
MAX_STOPS = 64
MAX_STOP_BYTES = 1024

MAX_LOOK_BACK = 65_536

_SAMPLING_RANGES = {
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "repeat_penalty": (0.0, 10.0),
    "repeat_last_n": (0, MAX_LOOK_BACK),
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
    "dry_multiplier": (0.0, 100.0),
    "dry_base": (1.0, 10.0),
    "dry_allowed_length": (0, MAX_LOOK_BACK),
    "dry_penalty_last_n": (0, MAX_LOOK_BACK),
    "xtc_probability": (0.0, 1.0),
    "xtc_threshold": (0.0, 0.5),
    "mirostat": (0, 2),
    "mirostat_tau": (0.0, 100.0),
    "mirostat_eta": (0.0, 1.0),
}


def check_run(spec: RunSpec, prefix: Sequence[LogEntry], capabilities: Capabilities) -> None:
    """Raises InvalidArgument that names the first field that can't be right."""
    refuse_undeclared(spec, capabilities)
    _check_input(spec)
    check_tools(spec)
    _check_length(spec)
    _check_sampling(spec.sampling)
    for entry in prefix:
        if entry.choice >= spec.choices:
            raise invalid_field("prefix", f"has an entry of choice {entry.choice}, but n is {spec.choices}")


def refuse_undeclared(spec: RunSpec, capabilities: Capabilities) -> None:
    """An option that the engine does not declare is refused by name, never ignored."""
    declared = capabilities.declared()
    for demand in spec.demands:
        if demand.capability in declared:
            continue
        if demand.capability == "deterministic":
            raise FailedPrecondition(
                Reason.DETERMINISM_UNAVAILABLE,
                "deterministic: this worker's start-up test did not show that it gives equal bytes under load",
                metadata={"field": demand.field, "capability": demand.capability},
            )
        raise InvalidArgument(
            Reason.UNSUPPORTED_OPTION,
            f"{demand.field}: this model's engine has no support for {demand.capability}",
            metadata={"field": demand.field, "capability": demand.capability},
        )


def _check_input(spec: RunSpec) -> None:
    if spec.inputs:
        _check_inputs(spec.inputs)
    elif spec.messages:
        if not any(message.content for message in spec.messages):
            raise invalid_field("generate.chat.messages", "at least one message needs text")
    elif not spec.prompt:
        raise invalid_field("generate.prompt", "must not be empty")


def _check_inputs(inputs: Sequence[str]) -> None:
    _check_range("embed.inputs: their number", len(inputs), 1, MAX_EMBED_INPUTS)
    for number, text in enumerate(inputs):
        if not text:
            raise invalid_field(f"embed.inputs[{number}]", "must not be empty")


def _check_length(spec: RunSpec) -> None:
    if spec.max_tokens is not None:
        _check_range("generate.max_tokens", spec.max_tokens, 1, MAX_TOKENS)
    _check_range("generate.n", spec.choices, 1, MAX_CHOICES)
    _check_range("generate.top_logprobs", spec.top_logprobs or 0, 0, MAX_TOP_LOGPROBS)
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
    if sampling.typical_p == 0:
        raise invalid_field("generate.sampling.typical_p", "must be above 0, up to 1")
    if sampling.repeat_penalty == 0:
        raise invalid_field("generate.sampling.repeat_penalty", "must be above 0, up to 10")
    for name, (low, high) in _SAMPLING_RANGES.items():
        _check_range(f"generate.sampling.{name}", getattr(sampling, name), low, high)
    _check_range("generate.sampling.logit_bias: the number of entries", len(sampling.logit_bias), 0, MAX_BIASES)
    for token_id, bias in sampling.logit_bias.items():
        _check_range(f"generate.sampling.logit_bias[{token_id}]", bias, -100.0, 100.0)


def _check_range(field: str, value: float, low: float, high: float) -> None:
    """Refuses NaN too: it is not within any range."""
    if not (math.isfinite(value) and low <= value <= high):
        raise invalid_field(field, f"is {value}; it has to be from {low} to {high}")
