"""Rules, explanations and decisions over the wire: what is said is what then happens."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llama_orch.v2 import (
    app_pb2,
    app_service_pb2,
    app_service_pb2_grpc,
    assignment_pb2,
    catalog_service_pb2,
    decision_pb2,
    model_pb2,
    placement_service_pb2,
    placement_service_pb2_grpc,
    task_pb2,
    task_service_pb2,
    worker_pb2,
)
from llorch.errors import FailedPrecondition, InvalidArgument, NotFound, Reason
from llorch.rpc.client import call
from support.whole_system import CALL_S, WholeSystem, gguf, task, wait_until, whole_system

PIN, AVOID = assignment_pb2.ASSIGNMENT_MODE_PIN, assignment_pb2.ASSIGNMENT_MODE_AVOID
PREFER = assignment_pb2.ASSIGNMENT_MODE_PREFER


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[WholeSystem]:
    async with whole_system(tmp_path, simulate_gpu=["RTX 3090:24GiB", "RTX 3060:12GiB"]) as running:
        yield running


def stub(system: WholeSystem) -> placement_service_pb2_grpc.PlacementServiceStub:
    return placement_service_pb2_grpc.PlacementServiceStub(system.channel)


async def assign(
    system: WholeSystem, mode: "assignment_pb2.AssignmentMode.ValueType", target: str, model: str = "sim"
) -> assignment_pb2.Assignment:
    rule = assignment_pb2.Assignment(model=model, targets=[target], mode=mode)
    request = placement_service_pb2.SetAssignmentRequest(assignment=rule)
    return (await call(stub(system).SetAssignment, request, timeout_s=CALL_S)).assignment


async def explain(
    system: WholeSystem, model: str = "sim", wishes: task_pb2.PlacementOverrides | None = None
) -> decision_pb2.DecisionLog:
    request = placement_service_pb2.ExplainPlacementRequest(model=model, prompt_tokens=10, placement=wishes)
    return (await call(stub(system).ExplainPlacement, request, timeout_s=CALL_S)).decision


async def devices_of_workers(system: WholeSystem, model: str = "sim") -> list[list[str]]:
    return [list(worker.spec.device_ids) for worker in (await system.state()).workers if worker.spec.model == model]


@pytest.mark.req("ORCH-1012")
async def test_a_pinned_model_runs_where_it_is_pinned_and_the_explanation_said_so(system: WholeSystem) -> None:
    rule = await assign(system, PIN, "garage/3060")
    assert (rule.assignment_id, list(rule.targets)) == ("sim.pin", ["garage/RTX 3060"])
    before = await explain(system)
    assert before.summary.startswith("would load on GPU 1 (RTX 3060) of garage: ")
    assert "GPU 0 (RTX 3090) of garage excluded: rule 'sim only on garage/RTX 3060'" in before.summary
    assert before.pinned
    await system.generate(task())
    assert await devices_of_workers(system) == [["sim-1"]]
    after = await explain(system)
    assert after.summary.startswith("would run on GPU 1 (RTX 3060) of garage, where it is loaded")


@pytest.mark.req("ORCH-1012")
async def test_a_contradiction_is_refused_with_both_rules_named(system: WholeSystem) -> None:
    await assign(system, PIN, "garage/3060")
    with pytest.raises(FailedPrecondition) as refused:
        await assign(system, AVOID, "garage/3060")
    assert refused.value.reason is Reason.ASSIGNMENT_CONFLICT
    assert "'sim.avoid' (sim not on garage/RTX 3060)" in refused.value.message
    assert "'sim.pin' (sim only on garage/RTX 3060)" in refused.value.message
    listed = await call(stub(system).ListAssignments, placement_service_pb2.ListAssignmentsRequest(), timeout_s=CALL_S)
    assert [rule.assignment_id for rule in listed.assignments] == ["sim.pin"]


@pytest.mark.req("ORCH-1012")
async def test_a_pin_that_could_never_be_met_is_refused_with_what_it_needs(system: WholeSystem) -> None:
    await system.register("big", f"file:{gguf(system.folder, 'big.gguf')}", vram_claim_mib=20 * 1024, context=4096)
    with pytest.raises(FailedPrecondition, match=r"needs 20480 MiB .* garage/RTX 3060, holds 12288 MiB") as refused:
        await assign(system, PIN, "garage/3060", model="big")
    assert refused.value.reason is Reason.MODEL_FITS_NO_DEVICE
    rule = await assign(system, PIN, "garage/3090", model="big")
    assert list(rule.problems) == []
    spec = model_pb2.ModelSpec(name="big", source=f"file:{system.folder}/big.gguf", vram_claim_mib=30 * 1024)
    request = catalog_service_pb2.RegisterModelRequest(model=spec)
    answer = await call(system.catalog.RegisterModel, request, timeout_s=CALL_S)
    (warning,) = answer.warnings
    assert warning.startswith("'big.pin' (big only on garage/RTX 3090): model 'big' needs 30720 MiB (its vram_claim)")


@pytest.mark.req("ORCH-1012")
async def test_rules_that_a_deletion_leaves_behind_are_told(system: WholeSystem) -> None:
    await assign(system, PIN, "garage/3060")
    deleted = catalog_service_pb2.DeleteModelRequest(model="sim")
    (warning,) = (await call(system.catalog.DeleteModel, deleted, timeout_s=CALL_S)).warnings
    assert "'sim.pin' (sim only on garage/RTX 3060) still names model 'sim'" in warning
    listed = await call(stub(system).ListAssignments, placement_service_pb2.ListAssignmentsRequest(), timeout_s=CALL_S)
    assert [list(rule.problems) for rule in listed.assignments] == [["no model is called 'sim' now"]]
    apps = app_service_pb2_grpc.AppServiceStub(system.channel)
    await call(apps.CreateApp, app_service_pb2.CreateAppRequest(app=app_pb2.App(app="aider")), timeout_s=CALL_S)
    of_app = assignment_pb2.Assignment(app="aider", targets=["garage"], mode=PIN)
    request = placement_service_pb2.SetAssignmentRequest(assignment=of_app)
    await call(stub(system).SetAssignment, request, timeout_s=CALL_S)
    gone = await call(apps.DeleteApp, app_service_pb2.DeleteAppRequest(app="aider"), timeout_s=CALL_S)
    assert [warning.split(" still names ")[1][:11] for warning in gone.warnings] == ["app 'aider'"]


@pytest.mark.req("ORCH-1018")
async def test_conversations_without_a_session_go_on_where_they_began(tmp_path: Path) -> None:
    async with whole_system(tmp_path, simulate_gpu=["RTX 3090:24GiB", "RTX 3090:24GiB"]) as system:
        rule = assignment_pb2.Assignment(model="sim", targets=["garage"], mode=PREFER, replicas_min=2)
        await call(
            stub(system).SetAssignment, placement_service_pb2.SetAssignmentRequest(assignment=rule), timeout_s=CALL_S
        )

        async def both_are_ready() -> bool:
            return sum(worker.state == worker_pb2.WORKER_STATE_READY for worker in (await system.state()).workers) == 2

        await wait_until(both_are_ready)
        talks = {name: f"{name} says: " + "once more " * 100 for name in "abcd"}
        places: dict[str, list[str]] = {name: [] for name in talks}
        for name in "abcddbca":
            (placed, *_) = [
                event.placed for event in await system.generate(task(talks[name])) if event.HasField("placed")
            ]
            places[name].append(placed.worker_id)
            talks[name] += "and again " * 60
        assert all(first == second for first, second in places.values())
        assert len({first for first, _ in places.values()}) == 2, "new ones go where less is kept"


@pytest.mark.req("ORCH-1012")
async def test_rules_are_kept_over_a_restart(tmp_path: Path) -> None:
    gpus = ("RTX 3090:24GiB", "RTX 3060:12GiB")
    async with whole_system(tmp_path, simulate_gpu=list(gpus)) as system:
        await assign(system, PIN, "garage/3060")
        await system.generate(task())
    async with whole_system(tmp_path, simulate_gpu=list(gpus)) as system:
        request = placement_service_pb2.ListDecisionsRequest(model="sim")
        kept = await call(stub(system).ListDecisions, request, timeout_s=CALL_S)
        assert any(decision.pinned for decision in kept.decisions)
        deleted = placement_service_pb2.DeleteAssignmentRequest(assignment_id="sim.pin")
        await call(stub(system).DeleteAssignment, deleted, timeout_s=CALL_S)
        with pytest.raises(NotFound):
            await call(stub(system).DeleteAssignment, deleted, timeout_s=CALL_S)


@pytest.mark.req("ORCH-1012")
async def test_a_request_says_itself_where_it_runs(system: WholeSystem) -> None:
    await system.generate(task(placement=task_pb2.PlacementOverrides(pin=["garage/3060"])))
    await system.generate(task(placement=task_pb2.PlacementOverrides(avoid=["garage/3060"])))
    assert sorted(await devices_of_workers(system)) == [["sim-0"], ["sim-1"]]


@pytest.mark.req("ORCH-1034")
async def test_a_pin_to_two_cards_loads_over_both_with_one_reservation(system: WholeSystem) -> None:
    await assign(system, PIN, "garage/3090+3060")
    await system.generate(task())
    assert await devices_of_workers(system) == [["sim-0", "sim-1"]]
    (worker,) = (await system.state()).workers
    assert len(worker.spec.tensor_split) == len(worker.spec.reservation_mib) == 2
    held = {ledger.device.device_id: ledger.reserved_mib for ledger in (await system.state()).devices}
    assert all(
        held[device] >= mib for device, mib in zip(worker.spec.device_ids, worker.spec.reservation_mib, strict=True)
    )
    assert "GPU 0 (RTX 3090) + GPU 1 (RTX 3060) of garage" in (await explain(system)).summary


@pytest.mark.req("ORCH-1011")
async def test_decisions_are_listed_newest_first_and_by_task(system: WholeSystem) -> None:
    await system.register("other", f"file:{gguf(system.folder, 'other.gguf')}")
    ids = [await system.submit(task()), await system.submit(task(model="other"))]
    for task_id in ids:
        await system.stream(task_id)

    async def listed(**options: str) -> list[decision_pb2.DecisionLog]:
        request = placement_service_pb2.ListDecisionsRequest(**options)  # type: ignore[arg-type]  # fields by name
        return list((await call(stub(system).ListDecisions, request, timeout_s=CALL_S)).decisions)

    everything = await listed()
    assert [one.time.ToNanoseconds() for one in everything] == sorted(
        (one.time.ToNanoseconds() for one in everything), reverse=True
    )
    (of_task,) = await listed(task_id=ids[1])
    assert (of_task.model, of_task.chosen) == ("other", 0)
    assert of_task.summary.startswith("ran on GPU ")
    assert {one.model for one in await listed(model="sim")} == {"sim"}


@pytest.mark.req("ORCH-1012")
async def test_a_task_that_has_not_ended_is_explained_by_its_id_alone(system: WholeSystem) -> None:
    running = asyncio.create_task(system.generate(task(max_tokens=2000)))
    await wait_until(lambda: _is_running(system))
    (shown,) = (await call(system.tasks.ListTasks, task_service_pb2.ListTasksRequest(), timeout_s=CALL_S)).tasks
    ask = stub(system).ExplainPlacement
    request = placement_service_pb2.ExplainPlacementRequest(task_id=shown.task_id)
    told = (await call(ask, request, timeout_s=CALL_S)).decision
    assert (told.task_id, told.model) == (shown.task_id, "sim")
    assert told.summary.startswith("would run on GPU 0 (RTX 3090) of garage, where it is loaded")
    request.model = "sim"
    with pytest.raises(InvalidArgument, match="task_id: goes alone"):
        await call(ask, request, timeout_s=CALL_S)
    await call(system.tasks.CancelTask, task_service_pb2.CancelTaskRequest(task_id=shown.task_id), timeout_s=CALL_S)
    await running
    request.model = ""
    with pytest.raises(InvalidArgument, match=r"ended; ListDecisions has .* of it \(`llorch explain --task"):
        await call(ask, request, timeout_s=CALL_S)
    request.task_id = "task-none"
    with pytest.raises(NotFound):
        await call(ask, request, timeout_s=CALL_S)


async def _is_running(system: WholeSystem) -> bool:
    return (await system.state()).tasks_running == 1
