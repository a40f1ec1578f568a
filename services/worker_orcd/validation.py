"""Which runs are valid, whatever the engine's state is. Pure.

The orchestrator has checked its clients' numbers; the worker checks again, because native code relies on them,
whatever program calls the worker.
"""

from collections.abc import Iterable, Sequence

from llorch.errors import FailedPrecondition, InvalidArgument, Reason, invalid_field
from llorch.options.checking import check_said, check_value
from llorch.options.continuation import LastMessage, check_continued
from llorch.options.embedding import EMBEDDING
from llorch.options.generation import GENERATION, AnswerOptions
from llorch.options.option import values_of
from llorch.options.rerank import RERANK
from llorch.options.sampling import SAMPLING, Sampling
from llorch.options.task import TASK
from worker_orcd.chat.tools import check_tools
from worker_orcd.engine_info import Capabilities
from worker_orcd.log_entry import LogEntry
from worker_orcd.run_spec import Demand, RunSpec

_OF_PROMPTS = frozenset({"generation", "chat", "tools", "embeddings", "rerank"})
"""Capabilities without which there is no prompt."""

_LACKS = {
    "generation": " generates no text; name another model",
    "embeddings": " makes no vectors of texts; name another model",
    "rerank": " orders no documents; name another model",
}
"""What a model was not trained for, whatever its engine can do."""
_NO_SUPPORT = "'s engine has no support for {}"


def check_run(spec: RunSpec, prefix: Sequence[LogEntry], capabilities: Capabilities) -> None:
    """Raises InvalidArgument that names the first field that can't be right."""
    _refuse_undeclared(spec.demands, capabilities)
    _check_input(spec)
    check_tools(spec)
    if spec.remaining_ms is not None:
        check_value("remaining_ms", TASK["deadline_ms"], spec.remaining_ms)
    check_said("generate", GENERATION, {**values_of(AnswerOptions, spec), "n": spec.choices})
    check_said("generate.sampling", SAMPLING, values_of(Sampling, spec.sampling))
    for entry in prefix:
        if entry.choice >= spec.choices:
            raise invalid_field("prefix", f"has an entry of choice {entry.choice}, but n is {spec.choices}")


def check_prompt(spec: RunSpec, capabilities: Capabilities) -> None:
    """The part of `check_run` that is about what makes the prompt."""
    _refuse_undeclared([demand for demand in spec.demands if demand.capability in _OF_PROMPTS], capabilities)
    _check_input(spec)
    check_tools(spec)


def _refuse_undeclared(demands: Iterable[Demand], capabilities: Capabilities) -> None:
    """An option that the engine does not declare is refused by name, never ignored."""
    declared = capabilities.declared()
    for demand in demands:
        if demand.capability in declared:
            continue
        if demand.capability == "deterministic":
            raise FailedPrecondition(
                Reason.UNSUPPORTED_OPTION,
                "deterministic: this worker's start-up test did not show that it gives equal bytes under load",
                metadata={"field": demand.field, "capability": demand.capability},
            )
        raise InvalidArgument(
            Reason.UNSUPPORTED_OPTION,
            f"{demand.field}: this model{_LACKS.get(demand.capability, _NO_SUPPORT.format(demand.capability))}",
            metadata={"field": demand.field, "capability": demand.capability},
        )


def _check_input(spec: RunSpec) -> None:
    if spec.continue_last_message:
        check_continued(_last_message(spec))
    if spec.inputs:
        check_value("embed.inputs", EMBEDDING["inputs"], spec.inputs)
    elif spec.documents:
        check_said("rerank", RERANK, {"query": spec.query, "documents": spec.documents})
    elif spec.messages:
        if not any(message.content for message in spec.messages):
            raise invalid_field("generate.chat.messages", "at least one message needs text")
    elif not spec.prompt:
        raise invalid_field("generate.prompt", "must not be empty")


def _last_message(spec: RunSpec) -> LastMessage | None:
    if not spec.messages:
        return None
    last = spec.messages[-1]
    return LastMessage(last.role, last.content, bool(last.tool_calls), spec.must_call)
