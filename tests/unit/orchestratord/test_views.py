"""What callers are shown of the state."""

from llorch.errors import Reason
from orchestratord.core import effects, events
from orchestratord.core.facts.drains import AfterDrain, DrainPolicy
from orchestratord.core.facts.fleet import NodeState, Pool, Snapshot
from orchestratord.core.facts.loads import LoadPhase
from orchestratord.views import loads, nodes, pools, state
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
    assert health.blockers == (Blocker("worker-of-coder", 1, "coder still runs 1 task(s)"),)
    driver.finish_attempt(driver.last(effects.StartRun).attempt_id)
    assert pools.health(driver.state, "fast").blockers[0].message == "the process that had coder is ending"
    driver.worker_ended(driver.last(effects.StartWorker).spec)
    health = pools.health(driver.state, "fast")
    assert (health.pool.state, health.blockers) == (PoolState.DRAINED, ())


def test_a_node_is_draining_when_all_its_pools_are_and_it_can_be_reached() -> None:
    driver = fleet()
    node = driver.state.fleet.node("garage")
    assert not nodes.view(driver.state, node, driver.now).is_draining
    drain(driver)
    assert nodes.view(driver.state, node, driver.now).is_draining
    node.state = NodeState.SUSPECT
    assert not nodes.view(driver.state, node, driver.now).is_draining


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
