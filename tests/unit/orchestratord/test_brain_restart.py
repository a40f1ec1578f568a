"""An orchestrator that starts again expects back what was known before: nodes, their models, pools and drains."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from llorch.assignment_mode import Mode
from llorch.errors import Reason, Unavailable
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.effects import Effect
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.drains import AfterDrain, Drain
from orchestratord.core.facts.fleet import Device, Endpoint, EngineFacts, NodeState, Pool, Snapshot, WorkerReported
from orchestratord.core.facts.known_node import KnownNode
from orchestratord.core.facts.model import ModelSpec, ModelState, Origin
from orchestratord.core.facts.promise import Fingerprint, Promise
from orchestratord.core.facts.records import Record, RecordChange
from orchestratord.core.facts.released import ReleasedDevice
from orchestratord.core.facts.task import TaskError, TaskRequest, TaskState
from orchestratord.core.state import BrainConfig
from orchestratord.views import pools as view_pools
from support.brain_driver import BrainDriver, gpu, gpu_of

GIVEN_AT_MS = 1_000_000


def kept_by(driver: BrainDriver) -> tuple[Record, ...]:
    """What a store has of the life of this brain, kind by kind."""
    kept: dict[tuple[str, str], Record] = {}
    for change in (change for effect in driver.effects for change in changes_of(effect)):
        place = type(change.record).__name__, change.record.record_key
        kept.pop(place, None)
        if change.after is not None:
            kept[place] = change.after
    return tuple(kept[place] for place in sorted(kept))


def changes_of(effect: Effect) -> Sequence[RecordChange]:
    if isinstance(effect, effects.PersistChange):
        return effect.changes
    return [RecordChange(effect.before, effect.after)] if isinstance(effect, effects.PersistRecord) else []


def started_again(driver: BrainDriver, *tasks: TaskRequest, **config: float) -> BrainDriver:
    again = BrainDriver(BrainConfig(**config))  # type: ignore[arg-type]  # tests name fields
    again.handle(events.RecordsFound(kept_by(driver), GIVEN_AT_MS))
    again.handle(events.RecoveryBegan())
    for request in tasks:
        again.handle(events.TaskRestored(request, 5.0))
    return again


def durable(task_id: str, model: str) -> TaskRequest:
    return TaskRequest(task_id, model, b"", "digest", 1, durable=True)


def offering_garage(driver: BrainDriver) -> None:
    driver.add_node("garage", staged={"dir:notes.gguf": 100}, offered={"notes": "dir:notes.gguf"})


def worker(spec: WorkerSpec, state: WorkerState = WorkerState.READY, address: str = "a:1") -> WorkerReported:
    facts = EngineFacts("sim", "1", spec.slots, spec.context_per_slot, True, False, spec.reservation_mib)
    return WorkerReported(spec, state, facts, Endpoint(address, "secret"))


def spec_on(device: Device, worker_id: str = "worker-1") -> WorkerSpec:
    return WorkerSpec(worker_id, "coder", "file:/c.gguf", (device.device_id,), 1, 4096, reservation_mib=(4096,))


@pytest.mark.req("ORCH-1009")
@pytest.mark.parametrize("first", ["attic", "garage"])
def test_tasks_for_models_of_one_nodes_folder_run_whichever_node_comes_first(first: str) -> None:
    before = BrainDriver()
    offering_garage(before)
    before.add_node("attic")
    driver = started_again(before, durable("task-1", "notes"))
    assert driver.task("task-1").state is TaskState.QUEUED
    if first == "attic":
        driver.add_node("attic")
        driver.let_pass(60)
        assert driver.task("task-1").state is TaskState.QUEUED
    driver.let_pass(11)
    (looking, said) = [one.text for one in driver.all_of(effects.Narrate)]
    assert "was started again" in looking
    assert said.startswith(
        "waiting for node 'garage', which is expected back: it has not registered since the orchestrator started"
    )
    offering_garage(driver)
    assert driver.only(effects.StageModel).node_id == "garage"


@pytest.mark.parametrize("targets", [("garage",), ("garage/3090",), ("garage:desk",)])
def test_pinned_tasks_wait_for_their_node_whichever_comes_first(targets: tuple[str, ...]) -> None:
    before = BrainDriver()
    before.handle(events.ModelRegistered(ModelSpec("coder", "file:/c.gguf"), Origin.CALL, "call", 1))
    before.add_node("garage", pools=(Pool("garage:desk", "garage", ("GPU-1",)),))
    before.handle(events.AssignmentSet(Assignment("rule", "coder", "", targets, Mode.PIN)))
    driver = started_again(before, durable("task-1", "coder"))
    driver.add_node("attic", staged={"file:/c.gguf": 4096})
    driver.let_pass(60)
    assert driver.task("task-1").state is TaskState.QUEUED
    driver.add_node("garage", pools=(Pool("garage:desk", "garage", ("GPU-1",)),))
    assert driver.only(effects.StageModel).node_id == "garage"


def test_a_node_that_does_not_come_back_is_lost_and_its_tasks_hear_which() -> None:
    before = BrainDriver()
    offering_garage(before)
    driver = started_again(before, durable("task-1", "notes"), recovery_window_s=40.0)
    assert driver.state.fleet.node("garage").state is NodeState.AWAITED
    driver.add_node("attic")
    driver.let_pass(41)
    assert driver.state.fleet.node("garage").state is NodeState.LOST
    driver.let_pass(10)  # for so long it might have run
    terminal = driver.task("task-1").terminal
    assert isinstance(terminal, TaskError)
    assert (terminal.reason, terminal.retryable) == (Reason.NO_DEVICE, True)
    assert "node 'garage'" in terminal.message


def test_new_tasks_wait_for_an_awaited_node_as_well() -> None:
    before = BrainDriver()
    offering_garage(before)
    driver = started_again(before)
    task_id = driver.submit("notes")
    assert driver.task(task_id).state is TaskState.QUEUED
    offering_garage(driver)
    assert driver.only(effects.StageModel).node_id == "garage"


def test_a_task_of_a_model_that_no_record_names_waits_for_the_node_that_brings_it() -> None:
    """Its node registered before nodes were kept, or could not be kept."""
    driver = started_again(BrainDriver(), durable("task-1", "notes"), durable("task-2", "gone"))
    driver.let_pass(30)
    offering_garage(driver)
    assert driver.only(effects.StageModel).source == "dir:notes.gguf"
    driver.let_pass(100)
    terminal = driver.task("task-2").terminal
    assert isinstance(terminal, TaskError)
    assert terminal.reason is Reason.MODEL_NOT_FOUND


def loaded_on_garage() -> tuple[BrainDriver, WorkerSpec]:
    driver = BrainDriver()
    driver.handle(events.ModelRegistered(ModelSpec("coder", "file:/c.gguf"), Origin.CALL, "call", 1))
    driver.add_node("garage", staged={"file:/c.gguf": 4096})
    driver.add_node("attic", staged={"file:/c.gguf": 4096})
    return driver, spec_on(gpu())


def test_what_a_node_has_loaded_is_not_loaded_elsewhere_before_it_registers() -> None:
    before, spec = loaded_on_garage()
    driver = started_again(before, durable("task-1", "coder"))
    driver.add_node("attic", staged={"file:/c.gguf": 4096})
    driver.advance(1)
    driver.add_node("garage", staged={"file:/c.gguf": 4096}, workers=(worker(spec),))
    driver.attach(spec.worker_id)
    assert driver.task("task-1").state is TaskState.RUNNING
    driver.let_pass(10)
    assert not driver.all_of(effects.StageModel)
    assert not driver.all_of(effects.StartWorker)


def test_a_node_that_does_not_register_soon_keeps_no_task_from_running_elsewhere() -> None:
    before, _ = loaded_on_garage()
    driver = started_again(before, durable("task-1", "coder"))
    driver.add_node("attic", staged={"file:/c.gguf": 4096})
    driver.let_pass(9)
    assert not driver.all_of(effects.StageModel)
    driver.let_pass(2)
    assert driver.only(effects.StageModel).node_id == "attic"


def test_an_accepted_task_of_a_model_that_was_retired_runs_as_it_would_have_without_the_restart() -> None:
    before = BrainDriver()
    before.handle(events.ModelRegistered(ModelSpec("coder", "file:/c.gguf"), Origin.CALL, "call", 1))
    before.handle(events.ModelStateSet("coder", ModelState.RETIRED))
    driver = started_again(before, durable("task-1", "coder"))
    driver.add_node()
    assert driver.only(effects.StageModel).source == "file:/c.gguf"


def test_a_package_or_the_settings_file_may_take_the_name_of_an_offered_model() -> None:
    before = BrainDriver()
    offering_garage(before)
    driver = BrainDriver()
    driver.handle(events.RecordsFound(kept_by(before), GIVEN_AT_MS))
    spec = ModelSpec("mine", "file:/m.gguf", aliases=("notes",))
    driver.handle(events.ModelRegistered(spec, Origin.FILE, "settings file", 1))
    driver.handle(events.RecoveryBegan())
    assert driver.state.catalog.get("notes").name == "mine"


def test_a_node_is_kept_when_it_changes_and_not_with_every_report() -> None:
    driver = BrainDriver()
    offering_garage(driver)
    driver.report(snapshot=Snapshot(full=True, devices=(gpu(),), offered={"notes": "dir:notes.gguf"}))
    driver.report(snapshot=Snapshot(full=False, devices=(gpu(others_mib=7),)))
    nodes = [one for one in driver.all_of(effects.PersistRecord) if isinstance(one.after, KnownNode)]
    assert len(nodes) == 1
    driver.report(snapshot=Snapshot(full=True, devices=(gpu(), gpu("GPU-2")), offered={"notes": "dir:notes.gguf"}))
    newest = driver.all_of(effects.PersistRecord)[-1].after
    assert isinstance(newest, KnownNode)
    assert [device.device_id for device in newest.devices] == ["GPU-1", "GPU-2"]


def test_a_node_that_is_forgotten_is_not_expected_back() -> None:
    before = BrainDriver()
    before.add_node("garage")
    before.advance(10)
    before.handle(events.NodeForgotten("garage"))
    assert started_again(before).state.fleet.nodes == {}


# Drains and releases.


def drained(after: AfterDrain = AfterDrain.STAY) -> BrainDriver:
    """A pool is drained while a task runs there."""
    driver = BrainDriver()
    driver.add_model("coder", size_mib=4096, slots=1)
    driver.add_node("garage", pools=(Pool("garage", "garage", ("GPU-1",)),))
    driver.submit()
    driver.load()
    driver.handle(events.PoolDrainAsked("garage", 30, after=after))
    return driver


def test_a_drained_pool_stays_drained() -> None:
    driver = started_again(drained())
    driver.add_model("coder", size_mib=4096, slots=1)
    driver.add_node("garage", pools=(Pool("garage", "garage", ("GPU-1",)),))
    pool = view_pools.health(driver.state, "garage").pool
    assert pool.state is view_pools.PoolState.DRAINED
    driver.add_node("attic")
    driver.submit()
    assert driver.only(effects.StageModel).node_id == "attic"
    driver.handle(events.PoolDrainAsked("garage", after=AfterDrain.RELOAD))
    assert not [record for record in kept_by(driver) if isinstance(record, Drain)]


def test_a_drain_goes_on_with_the_workers_that_are_found() -> None:
    driver = started_again(drained())
    spec = spec_on(gpu())
    driver.add_node("garage", pools=(Pool("garage", "garage", ("GPU-1",)),), workers=(worker(spec),))
    assert driver.only(effects.StopWorker).worker_id == "worker-1"
    assert view_pools.health(driver.state, "garage").pool.state is view_pools.PoolState.DRAINING
    driver.report(snapshot=Snapshot(full=False, workers=(worker(spec, WorkerState.EXITED),)))
    assert view_pools.health(driver.state, "garage").pool.state is view_pools.PoolState.DRAINED


def test_a_reload_goes_on_and_starts_again_what_ran_there() -> None:
    driver = started_again(drained(AfterDrain.RELOAD))
    driver.add_model("coder", size_mib=4096, slots=1)
    assert driver.state.drains.find("garage") is not None, "its workers are not known yet"
    driver.add_node("garage", staged={"file:/models/coder.gguf": 4096}, pools=(Pool("garage", "garage", ("GPU-1",)),))
    assert driver.state.drains.find("garage") is None
    assert driver.only(effects.StartWorker).node_id == "garage"


# Who a node is.


def test_a_host_under_another_name_keeps_its_workers_and_counts_its_card_once() -> None:
    driver = BrainDriver()
    driver.add_model("coder", size_mib=4096, slots=2)
    driver.add_node("garage", host_id="host-1", pools=(Pool("garage", "garage", ("GPU-1",)),))
    task_id = driver.submit()
    spec = driver.load()
    driver.handle(events.DeviceReleaseAsked("garage", ("GPU-1",)))
    driver.advance(6)
    reported = (worker(spec, address="127.0.0.1:9300"),)
    pools = (Pool("cellar", "cellar", ("GPU-1",)),)
    driver.add_node("cellar", gpu(), host_id="host-1", instance_id="pm-2", workers=reported, pools=pools)
    state = driver.state
    assert list(state.fleet.nodes) == ["cellar"]
    assert [one.node_id for one in state.fleet.workers_on("cellar")] == ["cellar"]
    assert state.ledger.held(("cellar", "GPU-1")) == sum(spec.reservation_mib)
    assert state.ledger.held(("garage", "GPU-1")) == 0
    assert driver.task(task_id).state is TaskState.RUNNING
    assert ("cellar", "GPU-1") in state.released
    assert [record.record_key for record in kept_by(driver) if isinstance(record, KnownNode)] == ["cellar"]
    assert [record for record in kept_by(driver) if isinstance(record, ReleasedDevice)] == [
        ReleasedDevice("cellar", "GPU-1")
    ]


def test_a_worker_that_a_new_name_leaves_where_no_rule_admits_it_leaves() -> None:
    driver = BrainDriver()
    driver.add_model("coder", size_mib=4096)
    driver.add_node("garage", host_id="host-1")
    driver.handle(events.AssignmentSet(Assignment("rule", "coder", "", ("garage",), Mode.PIN)))
    driver.submit()
    spec = driver.load()
    driver.finish_attempt(next(iter(driver.state.attempts)))
    driver.advance(6)
    reported = (worker(spec, address="127.0.0.1:9300"),)
    driver.add_node("cellar", gpu(), host_id="host-1", instance_id="pm-2", workers=reported)
    assert driver.only(effects.StopWorker).worker_id == spec.worker_id
    assert "'garage' is called 'cellar' now; rules still name 'garage'" in driver.only(effects.WarnOfNode).text
    with pytest.raises(Unavailable, match="node 'garage' is not there; its host is called 'cellar' now"):
        driver.handle(events.ModelLoadAsked("coder", "worker-2"))


def test_drains_go_along_with_the_name_of_their_host() -> None:
    driver = BrainDriver()
    driver.add_node("garage", host_id="host-1", pools=(Pool("garage:desk", "garage", ("GPU-1",)),))
    driver.handle(events.PoolDrainAsked("garage:desk"))
    driver.advance(6)
    driver.add_node("cellar", gpu(), host_id="host-1", pools=(Pool("cellar:desk", "cellar", ("GPU-1",)),))
    assert view_pools.health(driver.state, "cellar:desk").pool.state is view_pools.PoolState.DRAINED
    assert [record.record_key for record in kept_by(driver) if isinstance(record, Drain)] == ["cellar:desk"]


def test_workers_that_a_renamed_host_does_not_have_any_more_are_gone() -> None:
    driver = BrainDriver()
    driver.add_model("coder", size_mib=4096)
    driver.add_node("garage", host_id="host-1")
    driver.submit()
    driver.load()
    driver.advance(6)
    driver.add_node("cellar", gpu(), host_id="host-1", instance_id="pm-2")
    assert driver.state.fleet.workers == {}
    assert driver.state.ledger.held(("cellar", "GPU-1")) == 0


@pytest.mark.parametrize("state", [WorkerState.READY, WorkerState.EXITED])
def test_what_a_node_says_of_another_ones_worker_is_refused(state: WorkerState) -> None:
    driver = BrainDriver()
    driver.add_model("coder", size_mib=4096)
    driver.add_node("garage", host_id="host-1")
    task_id = driver.submit()
    spec = driver.load()
    for _ in range(3):
        driver.add_node("attic", host_id="host-2", workers=(worker(spec, state),))
        driver.report("attic", Snapshot(full=False, workers=(worker(spec, state),)))
    assert driver.state.fleet.workers[spec.worker_id].node_id == "garage"
    assert driver.task(task_id).state is TaskState.RUNNING
    refused = driver.all_of(effects.WarnOfNode)
    assert {one.node_id for one in refused} == {"attic"}
    assert len(refused) == 3, "once per link"


def test_a_card_that_moved_to_another_host_counts_there_alone() -> None:
    driver = BrainDriver()
    driver.add_node("garage", gpu("GPU-moved"))
    driver.add_node("attic", gpu("GPU-moved"), gpu("GPU-own"))
    assert set(driver.state.fleet.nodes["attic"].devices) == {"GPU-own"}, "garage is connected and has it"
    assert driver.only(effects.WarnOfNode).node_id == "attic"
    driver.advance(6)
    driver.report("attic", Snapshot(full=True, devices=(gpu("GPU-moved"), gpu("GPU-own"))))
    assert set(driver.state.fleet.nodes["attic"].devices) == {"GPU-moved", "GPU-own"}
    assert driver.state.fleet.nodes["garage"].devices == {}


def test_a_worker_whose_host_has_another_address_is_reached_there() -> None:
    driver = BrainDriver()
    driver.add_model("coder", size_mib=4096)
    driver.add_node("garage")
    task_id = driver.submit()
    spec = driver.load()
    driver.forget_effects()
    driver.report(snapshot=Snapshot(full=False, workers=(worker(spec, address="10.0.0.9:9300"),)))
    assert driver.only(effects.DetachWorker).worker_id == spec.worker_id
    assert driver.only(effects.AttachWorker).endpoint.address == "10.0.0.9:9300"
    driver.attach(spec.worker_id)
    assert driver.task(task_id).state is TaskState.RUNNING


def test_devices_of_unlike_hosts_may_have_one_id_where_ids_are_of_the_host_alone() -> None:
    driver = BrainDriver()
    card = replace(gpu("sim-0"), kind=gpu_of("x").kind.SIMULATED)
    driver.add_node("garage", card)
    driver.add_node("attic", card)
    assert [len(node.devices) for node in driver.state.fleet.nodes.values()] == [1, 1]


def test_a_card_that_moves_with_its_worker_is_charged_where_it_is_now() -> None:
    """A pool manager of an earlier release tells no host id."""
    driver = BrainDriver()
    driver.add_model("coder", size_mib=4096)
    driver.add_node("garage", gpu("GPU-moved"))
    task_id = driver.submit()
    spec = driver.load()
    driver.advance(6)
    driver.add_node("attic", gpu("GPU-moved"), workers=(worker(spec, address="127.0.0.1:9300"),))
    assert driver.state.fleet.workers[spec.worker_id].node_id == "attic"
    assert driver.state.ledger.held(("attic", "GPU-moved")) == sum(spec.reservation_mib)
    assert driver.task(task_id).state is TaskState.RUNNING
    assert not driver.all_of(effects.WarnOfNode)


def test_hosts_that_swap_their_names_keep_what_is_released() -> None:
    driver = BrainDriver()
    driver.add_node("garage", gpu("GPU-1"), host_id="host-1")
    driver.add_node("attic", gpu("GPU-2"), host_id="host-2")
    driver.handle(events.DeviceReleaseAsked("attic", ("GPU-2",)))
    driver.advance(6)
    driver.add_node("attic", gpu("GPU-1"), host_id="host-1")
    driver.add_node("garage", gpu("GPU-2"), host_id="host-2")
    assert ("garage", "GPU-2") in driver.state.released
    assert ("attic", "GPU-2") not in driver.state.released


def test_a_worker_that_was_silent_at_the_old_address_gets_its_time_at_the_new_one() -> None:
    driver = BrainDriver()
    driver.add_model("coder", size_mib=4096)
    driver.add_node("garage")
    driver.submit()
    spec = driver.load()
    driver.handle(events.WorkerSilent(spec.worker_id))
    driver.advance(1.9)
    driver.report(snapshot=Snapshot(full=False, workers=(worker(spec, address="10.0.0.9:9300"),)))
    driver.advance(1)
    assert not driver.all_of(effects.StopWorker)


def test_a_pool_that_its_node_does_not_have_any_more_can_be_put_to_work() -> None:
    driver = BrainDriver()
    driver.add_node("garage", pools=(Pool("garage:desk", "garage", ("GPU-1",)),))
    driver.handle(events.PoolDrainAsked("garage:desk"))
    driver.report(snapshot=Snapshot(full=True, devices=(gpu(),), pools=(Pool("garage", "garage", ("GPU-1",)),)))
    assert driver.state.drains.covers(("garage", "GPU-1"))
    driver.handle(events.PoolDrainAsked("garage:desk", after=AfterDrain.RELOAD))
    assert not driver.state.drains.covers(("garage", "GPU-1"))


def test_a_node_that_is_forgotten_takes_its_drains_along() -> None:
    driver = drained(AfterDrain.PURGE)
    driver.forget_effects()
    driver.advance(10)
    driver.handle(events.NodeForgotten("garage"))
    assert not driver.all_of(effects.DeleteStagedModel)
    assert not len(driver.state.drains)


@pytest.mark.parametrize("context", [None, 4096])
def test_what_was_promised_with_a_large_context_waits_for_its_node(context: int | None) -> None:
    """Though its owner leaves open that it be loaded with less elsewhere."""
    fingerprint = Fingerprint("9f86", ("one card",))
    before = BrainDriver()
    spec = ModelSpec("coder", "file:/c.gguf", vram_claim_mib=6000, context=context)
    before.handle(events.ModelRegistered(spec, Origin.CALL, "call", 1))
    before.add_node("garage")
    driver = started_again(before)
    promised = before.state.catalog.get("coder").context
    promise = Promise(fingerprint, ("CUDA RTX 3090",), promised)
    request = replace(durable("task-1", "coder"), deterministic=True)
    driver.handle(events.TaskRestored(request, 5.0, promise=promise))
    driver.add_node("attic", gpu("GPU-attic", name="RTX 4090"))
    driver.let_pass(30)
    assert driver.task("task-1").state is TaskState.QUEUED
