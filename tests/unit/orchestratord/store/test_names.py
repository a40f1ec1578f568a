"""What is written to the disk is called what the store says, and everything that is written has such a name."""

import dataclasses
import types
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any

from google.protobuf.descriptor_pb2 import EnumDescriptorProto

from llama_orch.v2 import error_reason_pb2
from llorch.assignment_mode import Mode
from llorch.cache_type import CacheType
from llorch.device_kind import DeviceKind
from llorch.errors import Reason
from llorch.finish_reason import FinishReason
from llorch.gguf.facts import Pooling
from llorch.split_mode import SplitMode
from orchestratord.core.facts.decision import Outcome
from orchestratord.core.facts.drains import AfterDrain, DrainPolicy
from orchestratord.core.facts.model import ModelState, Origin
from orchestratord.core.facts.promise import Promise
from orchestratord.core.facts.task import TaskRequest, TaskState, Terminal
from orchestratord.core.facts.work import Work
from orchestratord.core.learnt.rates import Quantity
from orchestratord.store import names
from orchestratord.store.kinds import KINDS

ALL_KEPT = (*(kind.type for kind in KINDS), TaskRequest, Promise, Terminal, TaskState)

VALUES: dict[type[Enum], set[str]] = {
    CacheType: {"f16", "q8_0", "q4_0"},
    SplitMode: {"auto", "layer", "none"},
    FinishReason: {
        "EOS", "STOP_STRING", "LENGTH", "CONTEXT_FULL", "TOOL_CALLS", "CANCELLED", "DEADLINE",
    },
    Mode: {"PIN", "PREFER", "AVOID"},
    ModelState: {"ACTIVE", "RETIRED"},
    Origin: {"DEFAULT", "MODEL", "NODE", "PACKAGE", "CALL", "FILE"},
    Outcome: {"chosen", "waits", "refused"},
    Quantity: {"prefill", "decode", "holding", "prompt", "load", "bandwidth"},
    Pooling: {"none", "mean", "cls", "last", "rank"},
    DeviceKind: {"CUDA", "CPU", "SIMULATED"},
    DrainPolicy: {"REQUEUE", "WAIT", "FAIL"},
    AfterDrain: {"STAY", "RELOAD", "PURGE"},
    Work: {"generate", "embed", "rerank"},
    TaskState: {"QUEUED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "EXPIRED"},
}  # fmt: skip
"""A new value is added here; one that is here may be on a disk, so it stays or gets a Change in store/names.py."""


def test_kinds_have_the_names_that_they_had_before() -> None:
    assert {kind.name for kind in KINDS} == {
        "models", "sources", "apps", "sessions", "calibrations", "rates", "released_devices", "assignments",
        "decisions", "nodes", "drains",
    }  # fmt: skip


def test_everything_that_is_kept_has_names_that_fit_and_nothing_else_has() -> None:
    kept = {kind for kind in _reachable(ALL_KEPT) if dataclasses.is_dataclass(kind)}
    assert kept == set(names.BY_TYPE)
    for shape in names.SHAPES:
        shape.check()
        assert len(set(shape.fields)) == len(shape.fields)


def test_values_on_a_disk_stay_what_they_are() -> None:
    enums = {kind for kind in _reachable(ALL_KEPT) if issubclass(kind, Enum)}
    assert {enum: {member.value for member in enum} for enum in enums - {Reason}} == VALUES


def test_a_reason_that_the_contract_has_reserved_is_read_as_another_one() -> None:
    reserved = EnumDescriptorProto()
    error_reason_pb2.ErrorReason.DESCRIPTOR.CopyToProto(reserved)
    assert {f"ERROR_REASON_{gone}" for gone in names.GONE_REASONS} == set(reserved.reserved_name)
    assert set(names.GONE_REASONS.values()) <= set(Reason)


def test_reasons_are_stored_by_the_names_that_the_contract_keeps() -> None:
    assert {f"ERROR_REASON_{reason.value}" for reason in Reason} <= set(error_reason_pb2.ErrorReason.keys())


def test_changes_come_in_the_order_of_their_formats_up_to_the_present_one() -> None:
    formats = [change.format for change in names.CHANGES]
    assert formats == sorted(formats)
    assert set(formats) == set(range(1, names.FORMAT + 1))
    assert {change.type for change in names.CHANGES} <= set(names.BY_TYPE)


def _reachable(kinds: tuple[Any, ...]) -> set[type]:
    """The dataclasses and enums that values of these types may hold."""
    found: set[type] = set()
    to_look_at = list(kinds)
    while to_look_at:
        kind = to_look_at.pop()
        if kind not in found:
            to_look_at.extend(_parts(kind))
            if isinstance(kind, type) and (dataclasses.is_dataclass(kind) or issubclass(kind, Enum)):
                found.add(kind)
    return found


def _parts(kind: Any) -> Iterator[Any]:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is not None:
        yield from (argument for argument in typing.get_args(kind) if argument is not Ellipsis)
    elif dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        yield from (hints[field.name] for field in dataclasses.fields(kind) if field.init)
