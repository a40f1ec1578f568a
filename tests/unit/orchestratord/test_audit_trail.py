"""Which changes are noted, under which names, and what is said of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llorch.assignment_mode import Mode
from llorch.background import TaskSupervisor
from llorch.errors import LlorchError, NotFound, Reason
from llorch.rpc.call_context import CallInfo, enter_call
from orchestratord.core import effects, events
from orchestratord.core.brain import HANDLERS
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.model import ModelRecord, ModelSpec, ModelState, Origin
from orchestratord.core.facts.records import RecordChange
from orchestratord.core.facts.targets import Place
from orchestratord.core.facts.task import TaskRequest
from orchestratord.runtime.audit_actions import ACTIONS, BY_EVENT
from orchestratord.runtime.audit_details import LONGEST_BYTES, details_of
from orchestratord.runtime.audit_trail import AuditTrail
from orchestratord.runtime.keeper import Keeper
from orchestratord.store.interface import AuditEntry
from orchestratord.store.shape import Shape
from support.manual_clock import ManualClock
from support.memory_store import FullDisk, MemoryStore

WORK = {
    events.TaskSubmitted, events.TaskCancelled, events.ReaderAttached, events.ReaderLeft,
}  # fmt: skip
OF_THE_SETTINGS_FILE = {events.AppDefined}
NEWS = {
    events.NodeRegistered, events.NodeReported, events.NodeTroubled, events.ModelStaged, events.StagedModelDeleted,
    events.ModelComing, events.StagingFailed, events.WorkerStartAccepted, events.WorkerStartFailed,
    events.WorkerAttached, events.WorkerSilent, events.RunsFound, events.AttemptStarted, events.AttemptFirstToken,
    events.AttemptDecided, events.OutputWentOn, events.AttemptEnded, events.AttemptUnknown, events.LostOutputCounted,
    events.TaskKept, events.TaskNotKept, events.TerminalPersisted,
    events.TaskRestored, events.RecordsFound, events.RecoveryBegan, events.ChangeKept, events.ChangeNotKept,
    events.OutputTooLarge, events.OutputsTooLarge, events.StopsCutShort, events.Tick,
}  # fmt: skip

REGISTERED = events.ModelRegistered(ModelSpec("coder", "file:/c.gguf", slots=2), Origin.CALL, "RegisterModel call")
NOT_FOUND = NotFound(Reason.MODEL_NOT_FOUND, "no")

Observed = tuple[events.Event, LlorchError | None, bool]


async def noted(observed: Sequence[Observed], *, in_a_call: bool = True) -> list[AuditEntry]:
    """What the audit log has of these, the newest first."""
    store, clock = MemoryStore(), ManualClock()
    async with TaskSupervisor("test") as tasks:
        keeper = Keeper(store, lambda _: None, clock, tasks)
        if in_a_call:
            enter_call(CallInfo("corr-1", "token:abc123", "ipv4:10.0.0.7:5", None))
        for event, refusal, asked in observed:
            AuditTrail(keeper, clock).observe(event, (), refusal, asked)
        await keeper.finish()
    return await store.audit(None, 10)


@pytest.mark.req("ORCH-1032")
async def test_commands_are_noted_with_their_caller_and_outcome() -> None:
    state_set = events.ModelStateSet("nope", ModelState.RETIRED)
    refused, done = await noted([(REGISTERED, None, True), (state_set, NOT_FOUND, True)])
    assert (done.actor, done.correlation_id, done.outcome) == ("token:abc123", "corr-1", "done")
    assert '"source": "file:/c.gguf", "slots": 2' in done.details
    assert (done.action, refused.action) == ("model.registered", "model.state_set")
    assert refused.outcome == "MODEL_NOT_FOUND"


async def test_what_comes_of_no_call_is_not_noted() -> None:
    assert await noted([(REGISTERED, None, True)], in_a_call=False) == []


async def test_work_and_what_comes_of_commands_is_not_noted() -> None:
    submitted = events.TaskSubmitted(TaskRequest("task-1", "coder", b"", "digest", 1))
    assert await noted([(submitted, None, True), (events.WorkerStartAccepted("worker-1", 1), None, False)]) == []


@pytest.mark.parametrize("is_full", [False, True])
async def test_a_change_is_noted_as_done_when_it_is_kept_and_as_refused_when_it_is_not(is_full: bool) -> None:
    store, clock = FullDisk(int(is_full)), ManualClock()
    change = effects.PersistChange((RecordChange(None, ModelRecord("coder")),))
    async with TaskSupervisor("test") as tasks:
        keeper = Keeper(store, lambda _: None, clock, tasks)
        enter_call(CallInfo("corr-1", "token:abc123", "ipv4:10.0.0.7:5", None))
        AuditTrail(keeper, clock).observe(REGISTERED, (change,), None, True)
        assert await store.audit(None, 10) == [], "it is not done yet"
        keeper.keep_change(change)
        await keeper.finish()
    (noted,) = await store.audit(None, 10)
    assert (noted.action, noted.outcome) == ("model.registered", "STORE_FAILED" if is_full else "done")


def test_every_command_that_is_no_work_has_an_action_of_its_own() -> None:
    known: tuple[set[Any], ...] = (set(BY_EVENT), WORK, OF_THE_SETTINGS_FILE, NEWS)
    assert set[Any].union(*known) == HANDLERS.keys(), "name it in runtime/audit_actions.py, or here"
    assert sum(len(some) for some in known) == len(HANDLERS)
    assert len({shape.tag for shape in ACTIONS}) == len(ACTIONS)


@pytest.mark.parametrize("shape", ACTIONS, ids=lambda shape: shape.tag)
def test_the_fields_of_every_command_have_names(shape: Shape) -> None:
    shape.check()
    assert 0 < len(shape.tag) <= 64


def test_no_secret_is_noted_and_nothing_that_was_not_said() -> None:
    app = App("aider", key_hash="0123", models={"gpt": "coder"})
    assert json.loads(details_of(events.AppCreated(app))) == {
        "app": {
            "name": "aider", "models": {"gpt": "coder"}, "priority": "interactive", "weight": 1.0,
            "max_concurrent_tasks": 0, "max_tokens_per_minute": 0, "origin": "CALL", "created_at_ms": 0,
        }
    }  # fmt: skip


def test_places_of_a_rule_are_noted_as_the_store_has_them() -> None:
    draft = Assignment("a", "coder", "", ("garage", "attic"), Mode.PIN, (Place("garage"), None))
    assert json.loads(details_of(events.AssignmentSet(draft)))["draft"]["places"] == [{"node_id": "garage"}, None]


def test_details_that_are_too_long_are_cut_and_say_by_how_much() -> None:
    names = tuple(f"alias-{number:04}" for number in range(400))
    spec = ModelSpec("coder", "file:/" + "x" * 300, aliases=names, slots=2)
    told = json.loads(details_of(events.ModelRegistered(spec, Origin.CALL, "RegisterModel call")))
    assert told["provenance"] == "RegisterModel call"
    assert told["spec"]["slots"] == 2
    assert told["spec"]["source"] == "file:/" + "x" * 250 + "… 50 more characters"
    assert told["spec"]["aliases"] == [*names[:256], "… 144 more"]


def test_mappings_are_cut_as_lists_are() -> None:
    app = App("aider", models={f"name-{number:04}": "coder" for number in range(1000)})
    models = json.loads(details_of(events.AppCreated(app)))["app"]["models"]
    assert len(models) == 65
    assert models["…"] == "936 more"


@dataclass(frozen=True)
class Said:
    one: Any
    other: Any
    payload: Any
    api_key: str = "secret"


SAID = Shape(Said, ("one", "other", "payload", "api_key"), tag="said")

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
        | st.frozensets(st.text(), max_size=3)
    ),
    max_leaves=8,
)
NOTHING: tuple[Any, ...] = (None, "", (), {})


def large(value: Any, size: int) -> Any:
    if isinstance(value, (str, tuple)):
        return value * size
    if isinstance(value, dict):
        return {f"{key}{number}": part for key, part in value.items() for number in range(size)}
    return value


@given(values, values, values, st.integers(1, 3000))
def test_details_are_always_json_of_bounded_size_with_all_that_was_said(
    one: Any, other: Any, payload: Any, size: int
) -> None:
    said = Said(large(one, size), (large(other, size), {"x" * size: other}), payload)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BY_EVENT, Said, SAID)
        text = details_of(said)
    assert len(text.encode()) <= LONGEST_BYTES
    told = json.loads(text, parse_constant=pytest.fail)
    assert set(told) == {name for name in ("one", "other", "payload") if getattr(said, name) not in NOTHING}
