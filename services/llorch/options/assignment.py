"""The options of a placement rule: `Assignment` of the contract."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import TypedDict

from llorch.options.option import Option, Range, Table, described, option, table_of
from llorch.options.task import places

_REPLICAS = Range(0, 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTerms:
    """What a rule says beside its subject, its places and its mode. The rule of the orchestrator, the contract's
    `Assignment` and a table of the settings file have these fields under the same names.
    """

    keep_loaded: bool = described(False, Option("Loaded at start and never evicted.", default="false"))
    replicas_min: int = option(0, _REPLICAS, "Workers to keep at least; 0 = none.")
    replicas_max: int = option(0, _REPLICAS, "Workers to have at most; 0 = one.")
    fallback: bool = described(
        False, Option("With a pin: whether it may run elsewhere when the place is lost.", default="false")
    )


ASSIGNMENT: Table = MappingProxyType(
    {"targets": places('Places: "node", "node/gpu", "node/gpu+gpu" or a pool id.', least=1), **table_of(RuleTerms)}
)


class AssignmentSettings(TypedDict, total=False):
    """The terms of a rule as arguments of a call, and its name."""

    assignment_id: str | None
    keep_loaded: bool | None
    replicas_min: int | None
    replicas_max: int | None
    fallback: bool | None
