"""What callers are shown of the state."""

from dataclasses import replace

from llorch.assignment_mode import Mode
from llorch.errors import Reason
from llorch.options.model import DEFAULT_CONTEXT
from orchestratord.core import effects, events
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.drains import AfterDrain, DrainPolicy
from orchestratord.core.facts.fleet import NodeState, Pool, Snapshot
from orchestratord.core.facts.loads import LoadPhase
from orchestratord.core.facts.model import ModelSpec, Origin
from orchestratord.core.facts.task import TaskState
from orchestratord.views import (
    assignments,
    capabilities,
    decisions,
    loads,
    models,
    nodes,
    pools,
    sessions,
    state,
    tasks,
)
from orchestratord.views.pools import Blocker, PoolState
from support.brain_driver import BrainDriver, gpu


def fleet() -> BrainDriver:
    """One worker with two slots, ready, in the pool `fast` with GPU-1; GPU-2 is in no pool."""
    driver = BrainDriver()
    driver.add_model(slots=2)
    devices = (gpu("GPU-2", index=1), gpu("GPU-1"))
    driver.add_node("garage", *devices)
    driver.report("garage", Snapshot(full=True, devices=devices, pools=(Pool("fast", "garage", ("GPU-1",)),)))
    driver.assign("coder", "garage/GPU-1")
    driver.load_idle("coder")
    return driver


def drain(driver: BrainDriver) -> None:
    driver.handle(events.PoolDrainAsked("fast", 30, DrainPolicy.WAIT, AfterDrain.STAY))


def test_a_pool_that_serves_has_the_slots_of_its_workers() -> None:
    driver = fleet()
    driver.submit()
    health = pools.health(driver.state, "fast")
    assert (health.is_ready, health.is_live, health.pool.state) == (True, True, PoolState.READY)
    assert (health.slots_total, health.slots_free, health.blockers, health.last_error) == (2, 1, (), "")


def test_a_drain_waits_for_workers_and_says_for_which() -> None:
    driver = fleet()
    driver.submit()
    drain(driver)
    health = pools.health(driver.state, "fast")
    assert (health.is_ready, health.is_live, health.pool.state) == (False, True, PoolState.DRAINING)
    assert health.blockers == (Blocker("worker-of-coder", 1, "coder still runs 1 task"),)
    driver.finish_attempt(driver.last(effects.StartRun).attempt_id)
    assert pools.health(driver.state, "fast").blockers[0].message == "the process that had coder is ending"
    driver.worker_ended(driver.last(effects.StartWorker).spec)
    health = pools.health(driver.state, "fast")
    assert (health.pool.state, health.blockers) == (PoolState.DRAINED, ())


def test_a_node_is_draining_when_all_its_pools_are_and_drained_when_they_are_empty() -> None:
    driver = fleet()
    node = driver.state.fleet.node("garage")

    def shown() -> str:
        return nodes.view(driver.state, node, driver.now).state

    assert shown() == "READY"
    drain(driver)
    assert shown() == "DRAINING"
    driver.worker_ended(driver.last(effects.StartWorker).spec)
    assert shown() == "DRAINED"
    node.state = NodeState.SUSPECT
    assert shown() == "SUSPECT", "what its pools do is not known"


def test_a_node_with_a_pool_that_works_is_ready() -> None:
    driver = fleet()
    devices = tuple(driver.state.fleet.node("garage").devices.values())
    both = (Pool("fast", "garage", ("GPU-1",)), Pool("slow", "garage", ("GPU-2",)))
    driver.report("garage", Snapshot(full=True, devices=devices, pools=both))
    drain(driver)
    assert nodes.state_of(driver.state, driver.state.fleet.node("garage")) == "READY"


def test_a_node_tells_how_long_ago_it_came_and_reported() -> None:
    driver = fleet()
    driver.now += 3
    driver.report()
    driver.now += 2
    view = nodes.view(driver.state, driver.state.fleet.node("garage"), driver.now)
    assert (view.registered_ago_s, view.reported_ago_s) == (5, 2)


def test_devices_come_by_index_with_what_the_ledger_has_of_them() -> None:
    driver = fleet()
    first, second = state.view(driver.state, driver.now).devices
    assert (first.device.device.device_id, first.worker_ids) == ("GPU-1", ["worker-of-coder"])
    assert first.reserved_mib > 0
    assert first.reserved_mib + first.available_mib == 24 * 1024
    assert (second.device.device.device_id, second.worker_ids, second.reserved_mib) == ("GPU-2", [], 0)


def test_a_released_device_says_so_and_when_it_comes_back() -> None:
    driver = fleet()
    driver.handle(events.DeviceReleaseAsked("garage", ("GPU-2",), duration_s=60.0))
    driver.now += 10
    first, second = state.view(driver.state, driver.now).devices
    assert (first.device.is_released, first.release_ends_in_s) == (False, None)
    assert (second.device.is_released, second.release_ends_in_s) == (True, 50.0)


def test_a_load_says_what_it_does_and_one_that_failed_how_long_ago() -> None:
    driver = BrainDriver()
    driver.add_model()
    driver.add_node()
    driver.handle(events.ModelLoadAsked("coder", "worker-a"))
    (load,) = loads.views(driver.state)
    assert load.load.phase is LoadPhase.STAGING
    assert load.message == "looking for the file of coder on garage"
    driver.stage()
    spec = driver.only(effects.StartWorker).spec
    driver.worker_ended(spec, failure=(Reason.MODEL_LOAD_FAILED, "no"))
    driver.now += 4
    (failed,) = loads.failures(driver.state, driver.now)
    assert (failed.failure.model, failed.ago_s) == ("coder", 4)


def test_a_task_that_waits_has_a_position_and_one_that_runs_a_worker() -> None:
    driver = fleet()
    running, _, third, last = [driver.task(driver.submit()) for _ in range(4)]
    there = tasks.view(driver.state, running)
    assert (there.worker_id, there.queue_position, there.predicted_start_ms) == ("worker-of-coder", None, None)
    assert [tasks.view(driver.state, task).queue_position for task in (third, last)] == [0, 1]
    assert tasks.view(driver.state, last).worker_id == ""


def test_a_model_has_the_context_of_its_workers_and_without_any_the_one_that_is_known() -> None:
    driver = BrainDriver()
    driver.add_model(context=8192)
    driver.add_model("other")
    assert models.view(driver.state, driver.state.catalog.get("other")).context is None
    model = driver.state.catalog.get("coder")
    assert models.view(driver.state, model) == models.ModelView(model, 8192, 0)
    driver.add_node()
    spec = driver.load_idle("coder")
    assert models.view(driver.state, model) == models.ModelView(model, spec.context_per_slot, 1)
    there = models.availability(driver.state, model)
    assert (there.staged_node_ids, there.ready_worker_ids) == (["garage"], ["worker-of-coder"])


def test_a_session_is_warm_as_long_as_its_worker_is_there() -> None:
    driver = fleet()
    driver.submit(session_id="chat")
    driver.finish_attempt(driver.only(effects.StartRun).attempt_id)
    session = driver.state.sessions.get("", "chat")
    driver.now += 10
    warm = sessions.view(driver.state, session, driver.now)
    assert (warm.worker_id, warm.warm_tokens) == ("worker-of-coder", 8)
    assert warm.expires_in_s == driver.state.config.session_ttl_s - 10
    driver.worker_ended(driver.last(effects.StartWorker).spec)
    cold = sessions.view(driver.state, session, driver.now)
    assert (cold.worker_id, cold.warm_tokens) == ("", 0)


def test_places_of_an_assignment_are_called_by_the_names_that_they_have_now() -> None:
    driver = fleet()
    (view,) = assignments.views(driver.state, driver.state.assignments.all())
    assert view.targets == ["garage/0"]
    driver.handle(events.AssignmentSet(Assignment("", "coder", "", ("attic",), Mode.AVOID, origin=Origin.FILE)))
    views = assignments.views(driver.state, driver.state.assignments.all())
    assert ["attic"] in [view.targets for view in views]


def test_a_decision_comes_with_a_sentence_that_says_whether_it_was_meant() -> None:
    driver = fleet()
    record = next(iter(driver.state.decisions.newest_first()))
    assert decisions.view(record).record is record
    assert decisions.view(record).summary != decisions.view(record, is_dry_run=True).summary


def test_the_context_of_a_model_that_no_node_has_looked_at_follows_from_what_a_reader_of_its_file_says() -> None:
    driver = BrainDriver()
    driver.add_model()
    model = driver.state.catalog.get("coder")
    model.spec, model.facts = replace(model.spec, context=None), None
    assert models.context(driver.state, model, 0) is None
    assert models.context(driver.state, model, 8192) == 8192
    assert models.context(driver.state, model, 1_000_000) == DEFAULT_CONTEXT
    model.spec = replace(model.spec, context=4096)
    assert models.context(driver.state, model, 8192) == 4096
    ready = fleet()
    worker = ready.state.fleet.workers["worker-of-coder"]
    assert worker.engine
    loaded = ready.state.catalog.get("coder")
    assert models.context(ready.state, loaded, 1_000_000) == worker.engine.context_per_slot


def test_a_model_can_do_what_its_worker_can_and_a_pool_has_its_engines() -> None:
    driver = BrainDriver()
    driver.add_model(context=8192)
    devices = (gpu("GPU-1"), gpu("GPU-2", index=1))
    driver.add_node("garage", *devices)
    pools_there = (Pool("slow", "garage", ("GPU-2",)), Pool("fast", "garage", ("GPU-1",)))
    driver.report("garage", Snapshot(full=True, devices=devices, pools=pools_there))
    (before,) = capabilities.of_models(driver.state)
    assert (before.context_max, before.worker) == (8192, None)
    driver.assign("coder", "garage/GPU-1")
    spec = driver.load_idle("coder")
    (after,) = capabilities.of_models(driver.state)
    assert (after.context_max, after.worker) == (spec.context_per_slot, driver.state.fleet.worker(spec.worker_id))
    engines = [(pool.pool_id, pool.engine_versions) for pool in capabilities.of_pools(driver.state)]
    assert engines == [("fast", ["sim 1"]), ("slow", [])]


def test_a_model_of_a_package_that_a_call_changes_and_leaves_again_is_told_as_it_is() -> None:
    driver = BrainDriver()
    driver.handle(events.ModelRegistered(ModelSpec("smollm2", "pkg:x/y.gguf"), Origin.PACKAGE, "package x 1"))
    before = driver.state.catalog.get("smollm2")
    driver.add_model("smollm2")
    (told,) = models.surprises(before, driver.state.catalog.get("smollm2"), leaving=0)
    assert told.startswith("model 'smollm2' was pkg:x/y.gguf of package x 1; what was given takes its place")
    driver.handle(events.ModelDeleted("smollm2"))
    (told,) = models.still_there(driver.state, "smollm2")
    assert told.startswith("model 'smollm2' is still in the catalog, as package x 1 describes it")


def test_a_model_that_only_a_call_described_leaves_no_word_behind() -> None:
    driver = BrainDriver()
    driver.add_model()
    assert models.surprises(None, driver.state.catalog.get("coder"), leaving=0) == []
    driver.handle(events.ModelDeleted("coder"))
    assert models.still_there(driver.state, "coder") == []


def test_how_a_durable_task_ended_is_told_once_the_store_has_it() -> None:
    driver = fleet()
    done, refused = (driver.submit(durable=True) for _ in range(2))
    first, second = driver.all_of(effects.StartRun)
    driver.finish_attempt(first.attempt_id)
    driver.finish_attempt(second.attempt_id)
    assert [tasks.view(driver.state, driver.task(it)).state for it in (done, refused)] == [TaskState.RUNNING] * 2
    driver.handle(events.TerminalPersisted(done))
    assert tasks.view(driver.state, driver.task(done)).state is TaskState.COMPLETED
    waiting = driver.submit("coder", durable=True, deadline_s=1.0)
    driver.handle(events.TaskCancelled(waiting))
    assert tasks.view(driver.state, driver.task(waiting)).state is TaskState.CANCELLED, "its cancel waits for the store"
