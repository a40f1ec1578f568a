"""Pools are drained, reloaded and purged, and work in them goes on, waits or fails as was asked."""

import pytest

from llorch.errors import NotFound, Reason
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.facts.drains import AfterDrain, DrainPolicy
from orchestratord.core.facts.fleet import Endpoint, EngineFacts, Leaving, Pool, Snapshot, WorkerReported
from orchestratord.core.facts.task import TaskError, TaskState
from support.brain_driver import BrainDriver, gpu

FAST = Pool("fast", "garage", ("GPU-1",))
SLOW = Pool("slow", "garage", ("GPU-2",))
SOURCE = "file:/models/coder.gguf"


def brain(resumes: bool = False) -> tuple[BrainDriver, WorkerSpec]:
    """Two pools of one card each; a model is loaded in the first."""
    driver = BrainDriver()
    driver.add_model("coder", size_mib=6000, slots=1, vram_claim_mib=6000)
    devices = (gpu("GPU-1", total_mib=10_000), gpu("GPU-2", total_mib=10_000, index=1, name="RTX 3060"))
    driver.add_node("garage", *devices)
    driver.report(
        snapshot=Snapshot(full=True, devices=devices, pools=(FAST, SLOW), staged={SOURCE: 6000, "file:/old.gguf": 100})
    )
    driver.handle(events.ModelLoadAsked("coder", "worker-a"))
    spec = driver.only(effects.StartWorker).spec
    facts = EngineFacts("sim", "1", 1, 4096, True, False, (6000,), resumes)
    ready = WorkerReported(spec, WorkerState.READY, facts, Endpoint("a:1", "secret"))
    driver.report(snapshot=Snapshot(full=False, workers=(ready,)))
    driver.handle(events.WorkerAttached(spec.worker_id))
    driver.forget_effects()
    return driver, spec


def drain(driver: BrainDriver, policy: DrainPolicy = DrainPolicy.REQUEUE, after: AfterDrain = AfterDrain.STAY) -> None:
    driver.handle(events.PoolDrainAsked("fast", 30, policy, after))


@pytest.mark.req("ORCH-1022", "POOL-2008")
def test_idle_workers_of_a_drained_pool_end_at_once_and_new_work_goes_elsewhere() -> None:
    driver, spec = brain()
    drain(driver)
    assert driver.only(effects.StopWorker).why is Leaving.DRAINED
    driver.worker_ended(spec)
    found = driver.state.drains.find("fast")
    assert found is not None
    assert found.is_drained
    driver.submit("coder")
    assert driver.only(effects.StartWorker).spec.device_ids == ("GPU-2",)


@pytest.mark.req("ORCH-1022")
def test_busy_workers_have_time_to_finish() -> None:
    driver, _ = brain()
    task_id = driver.submit("coder")
    drain(driver)
    driver.let_pass(29)
    assert driver.task(task_id).state is TaskState.RUNNING
    driver.finish_attempt(next(iter(driver.state.attempts)))
    assert driver.only(effects.StopWorker)


@pytest.mark.req("ORCH-1022")
def test_at_the_deadline_work_goes_on_elsewhere_from_where_it_was() -> None:
    driver, spec = brain(resumes=True)
    task_id = driver.submit("coder")
    old = driver.only(effects.StartRun).attempt_id
    driver.handle(events.AttemptFirstToken(old))
    drain(driver)
    driver.let_pass(31)
    assert driver.only(effects.CancelRun).attempt_id == old
    assert driver.task(task_id).state is TaskState.QUEUED
    driver.worker_ended(spec)
    elsewhere = driver.only(effects.StartWorker).spec
    assert elsewhere.device_ids == ("GPU-2",)
    driver.handle(events.WorkerStartAccepted(elsewhere.worker_id, 2))
    driver.worker_ready(elsewhere)
    assert driver.task(task_id).state is TaskState.RUNNING
    assert driver.last(effects.StartRun).worker_id == elsewhere.worker_id


def test_what_the_old_attempt_still_says_is_dropped() -> None:
    driver, _ = brain(resumes=True)
    task_id = driver.submit("coder")
    old = driver.only(effects.StartRun).attempt_id
    drain(driver)
    driver.let_pass(31)
    driver.finish_attempt(old)
    assert driver.task(task_id).state is TaskState.QUEUED


def test_a_cancel_of_a_moved_task_that_got_lost_is_sent_again() -> None:
    """The worker was out of reach when the cancel was sent; its run would hold the slot to its end."""
    driver, spec = brain(resumes=True)
    driver.submit("coder")
    old = driver.only(effects.StartRun).attempt_id
    drain(driver)
    driver.let_pass(31)
    driver.handle(events.WorkerSilent(spec.worker_id))
    driver.forget_effects()
    driver.handle(events.WorkerAttached(spec.worker_id))
    assert driver.only(effects.CancelRun).attempt_id == old


def test_output_that_no_engine_could_take_up_again_fails_at_the_deadline() -> None:
    driver, _ = brain(resumes=False)
    task_id = driver.submit("coder")
    driver.handle(events.AttemptFirstToken(driver.only(effects.StartRun).attempt_id))
    drain(driver)
    driver.let_pass(31)
    terminal = driver.task(task_id).terminal
    assert isinstance(terminal, TaskError)
    assert (terminal.reason, terminal.retryable) == (Reason.DRAINING, True)


@pytest.mark.req("ORCH-1022")
def test_a_drain_that_waits_has_no_deadline() -> None:
    driver, _ = brain()
    task_id = driver.submit("coder")
    drain(driver, DrainPolicy.WAIT)
    driver.let_pass(300)
    assert driver.task(task_id).state is TaskState.RUNNING


@pytest.mark.req("ORCH-1022")
def test_a_drain_that_fails_work_fails_it_at_the_deadline() -> None:
    driver, _ = brain(resumes=True)
    task_id = driver.submit("coder")
    drain(driver, DrainPolicy.FAIL)
    driver.let_pass(31)
    assert driver.task(task_id).state is TaskState.FAILED
    assert driver.only(effects.StopWorker)


@pytest.mark.req("ORCH-1022")
def test_a_reload_starts_again_what_ran_there() -> None:
    driver, spec = brain()
    drain(driver, after=AfterDrain.RELOAD)
    driver.worker_ended(spec)
    again = driver.only(effects.StartWorker).spec
    assert (again.model, again.device_ids) == ("coder", ("GPU-1",))
    assert again.worker_id != spec.worker_id
    assert driver.state.drains.find("fast") is None


@pytest.mark.req("ORCH-1022")
def test_a_reload_puts_a_drained_pool_to_work_again() -> None:
    driver, spec = brain()
    drain(driver)
    driver.worker_ended(spec)
    drain(driver, after=AfterDrain.RELOAD)
    assert driver.state.drains.find("fast") is None
    assert driver.only(effects.StartWorker).spec.device_ids == ("GPU-1",), "also what ran there before the first drain"


@pytest.mark.req("ORCH-1022")
def test_a_purge_removes_files_that_no_other_pool_of_the_node_uses() -> None:
    driver, spec = brain()
    drain(driver, after=AfterDrain.PURGE)
    assert not driver.all_of(effects.DeleteStagedModel), "not before the pool is empty"
    driver.worker_ended(spec)
    assert {effect.source for effect in driver.all_of(effects.DeleteStagedModel)} == {SOURCE, "file:/old.gguf"}
    driver.handle(events.StagedModelDeleted("garage", SOURCE))
    assert SOURCE not in driver.state.fleet.nodes["garage"].staged


def test_a_purge_leaves_files_alone_that_another_pool_uses() -> None:
    driver, spec = brain()
    driver.handle(events.PoolDrainAsked("slow", 30, DrainPolicy.REQUEUE, AfterDrain.PURGE))
    assert {effect.source for effect in driver.all_of(effects.DeleteStagedModel)} == {"file:/old.gguf"}
    assert spec.worker_id in driver.state.fleet.workers


def test_an_unknown_pool_is_refused_with_those_that_there_are() -> None:
    driver, _ = brain()
    with pytest.raises(NotFound, match="fast, slow"):
        driver.handle(events.PoolDrainAsked("quick"))


def test_tasks_wait_while_their_only_pool_is_reloaded() -> None:
    driver, spec = brain()
    driver.handle(events.PoolDrainAsked("slow"))
    running = driver.submit("coder")
    drain(driver, after=AfterDrain.RELOAD)
    waiting = driver.submit("coder")
    driver.finish_attempt(next(iter(driver.state.attempts)))
    driver.worker_ended(spec)
    again = driver.only(effects.StartWorker).spec
    driver.handle(events.WorkerStartAccepted(again.worker_id, 2))
    driver.worker_ready(again)
    assert driver.task(running).state is TaskState.COMPLETED
    assert driver.task(waiting).state is TaskState.RUNNING
