"""A full disk: every call that changes something is refused, and nothing has happened for it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from llama_orch.v2 import (
    app_pb2,
    app_service_pb2,
    app_service_pb2_grpc,
    assignment_pb2,
    catalog_service_pb2,
    fleet_service_pb2,
    meta_service_pb2,
    model_pb2,
    placement_service_pb2,
    placement_service_pb2_grpc,
)
from llorch.errors import Reason, Unavailable
from llorch.rpc.client import call
from orchestratord.store.sql import SqlStore
from support.streams import check_stream
from support.whole_system import CALL_S, WholeSystem, gguf, task, whole_system

AVOID, PREFER = assignment_pb2.ASSIGNMENT_MODE_AVOID, assignment_pb2.ASSIGNMENT_MODE_PREFER


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[WholeSystem]:
    """The first card holds `sim`, idle; there is an app and a rule."""
    async with whole_system(tmp_path, simulate_gpu=["RTX 3090:24GiB", "RTX 3060:12GiB"]) as running:
        await running.generate(task())
        apps = app_service_pb2_grpc.AppServiceStub(running.channel)
        await call(apps.CreateApp, app_service_pb2.CreateAppRequest(app=app_pb2.App(app="aider")), timeout_s=CALL_S)
        await call(_placement(running).SetAssignment, _set(PREFER, "prefers", "garage/3060"), timeout_s=CALL_S)
        yield running


def _placement(system: WholeSystem) -> placement_service_pb2_grpc.PlacementServiceStub:
    return placement_service_pb2_grpc.PlacementServiceStub(system.channel)


def _set(
    mode: "assignment_pb2.AssignmentMode.ValueType", rule_id: str, target: str
) -> placement_service_pb2.SetAssignmentRequest:
    rule = assignment_pb2.Assignment(assignment_id=rule_id, model="sim", targets=[target], mode=mode)
    return placement_service_pb2.SetAssignmentRequest(assignment=rule)


def _calls(system: WholeSystem) -> list[tuple[Any, Any]]:
    """Every call that has to be stored, each with something that would have workers leave if it can."""
    apps, rules = app_service_pb2_grpc.AppServiceStub(system.channel), _placement(system)
    other_slots = model_pb2.ModelSpec(name="sim", source=f"file:{gguf(system.folder)}", slots=7)
    retired = model_pb2.MODEL_STATE_RETIRED
    return [
        (system.catalog.RegisterModel, catalog_service_pb2.RegisterModelRequest(model=other_slots)),
        (system.catalog.SetModelState, catalog_service_pb2.SetModelStateRequest(model="sim", state=retired)),
        (system.catalog.DeleteModel, catalog_service_pb2.DeleteModelRequest(model="sim")),
        (rules.SetAssignment, _set(AVOID, "avoids", "garage/3090")),
        (rules.DeleteAssignment, placement_service_pb2.DeleteAssignmentRequest(assignment_id="prefers")),
        (apps.CreateApp, app_service_pb2.CreateAppRequest(app=app_pb2.App(app="other"))),
        (apps.UpdateApp, app_service_pb2.UpdateAppRequest(app=app_pb2.App(app="aider", weight=3.0))),
        (apps.DeleteApp, app_service_pb2.DeleteAppRequest(app="aider")),
        (system.fleet.ReleaseDevice, fleet_service_pb2.ReleaseDeviceRequest(device="garage/3090")),
    ]


async def _all_there_is(system: WholeSystem) -> list[Any]:
    apps, rules = app_service_pb2_grpc.AppServiceStub(system.channel), _placement(system)
    state = await system.state()
    workers = [(worker.spec.worker_id, worker.state) for worker in state.workers]
    return [
        workers,
        [(ledger.device.device_id, ledger.device.state) for ledger in state.devices],
        await call(system.catalog.ListModels, catalog_service_pb2.ListModelsRequest(), timeout_s=CALL_S),
        await call(apps.ListApps, app_service_pb2.ListAppsRequest(), timeout_s=CALL_S),
        await call(rules.ListAssignments, placement_service_pb2.ListAssignmentsRequest(), timeout_s=CALL_S),
    ]


async def _full(*_: object) -> None:
    raise Unavailable(Reason.STORE_FAILED, "the disk is full", retry_after_ms=1000)


async def test_a_change_that_could_not_be_stored_has_changed_nothing(
    system: WholeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await _all_there_is(system)
    with monkeypatch.context() as full_disk:
        full_disk.setattr(SqlStore, "save_records", _full)
        for method, request in _calls(system):
            with pytest.raises(Unavailable, match="the disk is full") as refused:
                await call(method, request, timeout_s=CALL_S)
            assert refused.value.reason is Reason.STORE_FAILED
            assert await _all_there_is(system) == before
    check_stream(await system.generate(task()))
    assert await _all_there_is(system) == before, "the worker that was there has answered"
    answer = await call(system.meta.ListAudit, meta_service_pb2.ListAuditRequest(page_size=20), timeout_s=CALL_S)
    outcomes = [entry.outcome for entry in answer.entries]
    refusals = len(_calls(system))
    assert outcomes == ["STORE_FAILED"] * refusals + ["done"] * (len(outcomes) - refusals)


async def test_each_of_these_changes_happens_when_it_can_be_stored(system: WholeSystem) -> None:
    """Else the test above would show nothing."""
    for method, request in _calls(system):
        if method is system.catalog.DeleteModel:
            continue  # the rest is about it
        before = await _all_there_is(system)
        await call(method, request, timeout_s=CALL_S)
        assert await _all_there_is(system) != before


async def test_a_task_that_could_not_be_stored_loads_nothing(
    system: WholeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    await system.register("other", f"file:{gguf(system.folder)}")
    before = await _all_there_is(system)
    with monkeypatch.context() as full_disk:
        full_disk.setattr(SqlStore, "save_task", _full)
        with pytest.raises(Unavailable, match="the disk is full"):
            await system.submit(task(model="other"))
    assert await _all_there_is(system) == before
