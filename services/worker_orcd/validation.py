"""Which runs can be right, whatever the engine's state is. Pure.

The orchestrator has checked its clients' numbers; the worker checks again, because what it hands to native
code has to be right whoever calls.
"""

from collections.abc import Sequence

from llorch.errors import FailedPrecondition, InvalidArgument, Reason, invalid_field
from llorch.request_limits import (
    LOGIT_BIAS,
    MAX_CHOICES,
    MAX_EMBED_INPUTS,
    MAX_LOGIT_BIASES,
    MAX_STOP_BYTES,
    MAX_STOPS,
    MAX_TOKENS,
    MAX_TOP_LOGPROBS,
    SAMPLING_RANGES,
    Range,
)
from worker_orcd.chat.tools import check_tools
from worker_orcd.engine_info import Capabilities
from worker_orcd.log_entry import LogEntry
from worker_orcd.run_spec import RunSpec, Sampling


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
    _check_range("embed.inputs: their number", len(inputs), Range(1, MAX_EMBED_INPUTS))
    for number, text in enumerate(inputs):
        if not text:
            raise invalid_field(f"embed.inputs[{number}]", "must not be empty")


def _check_length(spec: RunSpec) -> None:
    if spec.max_tokens is not None:
        _check_range("generate.max_tokens", spec.max_tokens, Range(1, MAX_TOKENS))
    _check_range("generate.n", spec.choices, Range(1, MAX_CHOICES))
    _check_range("generate.top_logprobs", spec.top_logprobs or 0, Range(0, MAX_TOP_LOGPROBS))
    if spec.remaining_ms is not None and spec.remaining_ms < 1:
        raise invalid_field("remaining_ms", "must be at least 1")
    _check_range("generate.stop: the number of strings", len(spec.stop), Range(0, MAX_STOPS))
    _check_range("generate.stop_token_ids: the number of ids", len(spec.stop_token_ids), Range(0, MAX_STOPS))
    for number, stop in enumerate(spec.stop):
        _check_range(f"generate.stop[{number}]: its length in bytes", len(stop.encode()), Range(1, MAX_STOP_BYTES))


def _check_sampling(sampling: Sampling) -> None:
    for name, allowed in SAMPLING_RANGES.items():
        _check_range(f"generate.sampling.{name}", getattr(sampling, name), allowed)
    biases = len(sampling.logit_bias)
    _check_range("generate.sampling.logit_bias: the number of entries", biases, Range(0, MAX_LOGIT_BIASES))
    for token_id, bias in sampling.logit_bias.items():
        _check_range(f"generate.sampling.logit_bias[{token_id}]", bias, LOGIT_BIAS)


def _check_range(field: str, value: float, allowed: Range) -> None:
    if value not in allowed:
        raise invalid_field(field, f"is {value}; it has to be {allowed}")
