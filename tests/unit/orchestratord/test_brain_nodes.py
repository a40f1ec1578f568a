"""Nodes and workers come, fall silent and go; no task waits for ever and nothing is counted twice."""

from dataclasses import replace

import pytest

from llorch.errors import Aborted, FailedPrecondition, Reason
from llorch.finish_reason import FinishReason
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.facts.attempt import Loss
from orchestratord.core.facts.fleet import Endpoint, EngineFacts, NodeState, Snapshot, WorkerReported
from orchestratord.core.facts.found_run import FoundRun
from orchestratord.core.facts.rules import Lane
from orchestratord.core.facts.task import ChoiceEnd, RunResult, TaskEnd, TaskError, TaskState
from orchestratord.core.placement import eviction, replicas
from support.brain_driver import BrainDriver, gpu


def running_brain() -> tuple[BrainDriver, str, WorkerSpec]:
    """A task that runs on a worker with one slot."""
    driver = BrainDriver()
    driver.add_model("coder", slots=1)
    driver.add_node()
    task_id = driver.submit()
    spec = driver.load()
    driver.forget_effects()
    return driver, task_id, spec


def reported(driver: BrainDriver, spec: WorkerSpec, **said: object) -> None:
    ready = driver.state.fleet.workers[spec.worker_id]
    worker = WorkerReported(spec, WorkerState.READY, ready.engine, ready.endpoint, **said)  # type: ignore[arg-type]
    driver.report(snapshot=Snapshot(full=False, workers=(worker,)))


def failed_with(driver: BrainDriver) -> Reason:
    terminal = driver.only(effects.AppendTerminal).terminal
    assert isinstance(terminal, TaskError)
    return terminal.reason


@pytest.mark.req("ORCH-1021")
def test_a_silent_node_becomes_suspect_and_its_running_task_goes_on() -> None:
    driver, task_id, _ = running_brain()
    driver.advance(5)
    assert driver.state.fleet.nodes["garage"].state is NodeState.SUSPECT
    assert driver.task(task_id).state is TaskState.RUNNING


def test_nothing_new_goes_to_a_suspect_node_until_it_reports_again() -> None:
    driver, _, _ = running_brain()
    waiting = driver.submit()
    driver.advance(5)
    driver.finish_attempt(next(iter(driver.state.attempts)))
    assert driver.task(waiting).state is TaskState.QUEUED
    driver.report()
    assert driver.task(waiting).state is TaskState.RUNNING


CARDS = (gpu("GPU-1"), gpu("GPU-2", index=1))
BACK_AFTER_S = 10.0


def node_that_was_away(*, keep_loaded: bool = False) -> tuple[BrainDriver, WorkerSpec]:
    """Its worker fell silent with it; the next report says that the node is back."""
    driver = BrainDriver()
    driver.add_model("coder", slots=1)
    driver.add_node("garage", *CARDS)
    spec = driver.load_idle("coder")
    if keep_loaded:
        driver.assign("coder", "garage", keep_loaded=True)
    driver.advance(driver.config.node_lease_s)
    driver.handle(events.WorkerSilent(spec.worker_id))
    driver.advance(BACK_AFTER_S)
    assert len(driver.all_of(effects.StartWorker)) == 1
    driver.forget_effects()
    return driver, spec


def test_a_worker_of_a_node_that_is_back_is_waited_for_before_another_one_is_loaded() -> None:
    driver, spec = node_that_was_away()
    tasks = [driver.submit() for _ in range(3)]
    driver.report()
    assert not driver.all_of(effects.StartWorker)
    driver.handle(events.WorkerAttached(spec.worker_id))
    assert driver.task(tasks[0]).state is TaskState.RUNNING


def test_a_promise_may_be_kept_by_a_worker_of_a_node_that_is_back() -> None:
    driver, spec = node_that_was_away()
    driver.report()
    assert replicas.are_coming(driver.state, Lane("coder"))
    driver.advance(driver.config.reattach_s)
    assert spec.worker_id in driver.state.fleet.workers
    assert not replicas.are_coming(driver.state, Lane("coder"))


def test_another_one_is_loaded_where_the_worker_stays_away() -> None:
    driver, spec = node_that_was_away()
    driver.submit()
    driver.report()
    driver.let_pass(driver.config.reattach_s)
    assert driver.last(effects.StartWorker).spec.worker_id != spec.worker_id


def test_a_node_that_comes_back_again_and_again_holds_up_no_load() -> None:
    driver, spec = node_that_was_away()
    driver.submit()
    for _ in range(4):
        driver.add_node("garage", *CARDS, staged={spec.source: 4096}, workers=(driver.ready_report(spec),))
        driver.advance(driver.config.reattach_s / 2)
    assert driver.last(effects.StartWorker).spec.worker_id != spec.worker_id


def test_a_worker_that_its_node_gets_no_answer_from_is_not_waited_for() -> None:
    driver, spec = node_that_was_away()
    driver.submit()
    wedged = replace(driver.ready_report(spec), answers=False)
    driver.report(snapshot=Snapshot(full=False, workers=(wedged,)))
    assert driver.last(effects.StartWorker).spec.worker_id != spec.worker_id


def test_the_only_worker_of_a_kept_model_is_kept_while_it_is_waited_for() -> None:
    driver, spec = node_that_was_away(keep_loaded=True)
    driver.report()
    worker = driver.state.fleet.workers[spec.worker_id]
    assert eviction.is_kept(driver.state, worker)
    assert not driver.all_of(effects.StartWorker)
    assert replicas.idle_limit_s(driver.state, worker) is None


def test_waiting_tasks_end_when_no_node_comes_back() -> None:
    driver = BrainDriver()
    driver.add_model()
    driver.add_node()
    task_id = driver.submit()
    driver.advance(5 + 30.25)
    assert driver.task(task_id).state is TaskState.FAILED
    assert failed_with(driver) is Reason.NO_DEVICE


def test_a_stall_of_our_own_gives_every_node_a_fresh_lease() -> None:
    driver, _, _ = running_brain()
    driver.handle(events.Tick())
    driver.now += 20
    driver.handle(events.Tick())
    assert driver.state.fleet.nodes["garage"].state is NodeState.READY


def test_a_report_over_an_older_link_is_refused() -> None:
    driver, _, _ = running_brain()
    old = driver.sessions["garage"]
    driver.now += 1
    driver.add_node()
    with pytest.raises(Aborted) as refused:
        driver.handle(events.NodeReported("garage", old, 0, Snapshot(full=False)))
    assert refused.value.reason is Reason.STALE_SESSION


def test_a_worker_whose_exit_is_reported_loses_its_attempts_and_its_memory() -> None:
    driver, task_id, spec = running_brain()
    driver.worker_ended(spec, failure=(Reason.WORKER_LOST, "killed by signal 9"))
    assert driver.task(task_id).attempt is None
    assert not driver.state.attempts
    assert spec.worker_id not in driver.state.ledger.loads_on(("garage", "GPU-1"))
    assert driver.only(effects.DetachWorker).worker_id == spec.worker_id


def test_a_worker_that_its_node_does_not_hear_of_either_is_stopped_when_attaching_takes_too_long() -> None:
    driver, task_id, spec = running_brain()
    driver.handle(events.WorkerSilent(spec.worker_id))
    reported(driver, spec, answers=False)
    driver.advance(1.75)
    assert driver.task(task_id).state is TaskState.RUNNING
    driver.advance(0.5)
    assert driver.task(task_id).state is TaskState.QUEUED
    assert driver.only(effects.StopWorker).worker_id == spec.worker_id


def test_a_worker_that_its_node_hears_of_is_slow_or_behind_a_cut_line_and_is_left_alone_for_a_minute() -> None:
    driver, task_id, spec = running_brain()
    driver.handle(events.WorkerSilent(spec.worker_id))
    driver.let_pass(60)
    assert driver.task(task_id).state is TaskState.QUEUED
    assert not driver.all_of(effects.StopWorker)
    driver.let_pass(3)
    assert driver.only(effects.StopWorker).worker_id == spec.worker_id


def test_a_worker_that_attaches_again_in_time_loses_nothing() -> None:
    driver, task_id, spec = running_brain()
    driver.handle(events.WorkerSilent(spec.worker_id))
    driver.advance(1)
    driver.handle(events.WorkerAttached(spec.worker_id))
    driver.advance(3)
    assert driver.task(task_id).state is TaskState.RUNNING


def test_an_attempt_that_the_worker_does_not_know_is_lost() -> None:
    driver, _, _ = running_brain()
    lost = next(iter(driver.state.attempts))
    driver.handle(events.AttemptUnknown(lost))
    assert lost not in driver.state.attempts
    assert driver.only(effects.StartRun).number == 2


def test_a_run_that_its_worker_cancels_by_itself_is_no_answer() -> None:
    driver, task_id, _ = running_brain()
    cancelled = RunResult((ChoiceEnd(0, FinishReason.CANCELLED, 4),), tokens_out=4)
    driver.handle(events.AttemptEnded(next(iter(driver.state.attempts)), cancelled))
    assert driver.task(task_id).losses == (Loss.UNKNOWN,)
    assert driver.only(effects.StartRun).number == 2


def test_a_run_that_ends_at_its_deadline_expires_with_what_there_is() -> None:
    driver, task_id, _ = running_brain()
    late = RunResult((ChoiceEnd(0, FinishReason.DEADLINE, 4),), tokens_out=4)
    driver.handle(events.AttemptEnded(next(iter(driver.state.attempts)), late))
    assert driver.task(task_id).state is TaskState.EXPIRED
    assert isinstance(driver.only(effects.AppendTerminal).terminal, TaskEnd)


def test_runs_of_an_earlier_life_are_released() -> None:
    driver, _, spec = running_brain()
    known = next(iter(driver.state.attempts))
    driver.handle(events.RunsFound(spec.worker_id, (FoundRun(known), FoundRun("attempt-old"))))
    assert driver.only(effects.ReleaseRuns).attempt_ids == ("attempt-old",)


def test_a_worker_missing_from_a_full_report_is_gone_only_if_the_report_knows_its_start() -> None:
    driver = BrainDriver()
    driver.add_model("coder", size_mib=4096)
    driver.add_node("garage", gpu(), staged={"file:/models/coder.gguf": 4096})
    driver.submit()
    worker_id = driver.only(effects.StartWorker).spec.worker_id
    driver.handle(events.WorkerStartAccepted(worker_id, 1))
    everything = Snapshot(full=True, devices=(gpu(),), staged={"file:/models/coder.gguf": 4096})
    driver.report(snapshot=everything, applied=0)
    assert worker_id in driver.state.fleet.workers
    driver.report(snapshot=everything, applied=1)
    assert worker_id not in driver.state.fleet.workers


def test_a_worker_that_was_reported_once_and_is_no_more_is_gone_whatever_commands_its_node_has_heard() -> None:
    """A pool manager that was restarted has adopted it, and has heard no command of ours yet."""
    driver, task_id, _ = running_brain()
    driver.report(snapshot=Snapshot(full=True, devices=(gpu(),)), applied=0)
    assert driver.task(task_id).losses == (Loss.NODE,)
    assert not driver.state.fleet.workers


def test_a_worker_that_is_unknown_here_is_adopted_and_charged() -> None:
    driver = BrainDriver()
    driver.add_model("coder")
    driver.add_node()
    spec = WorkerSpec("worker-x", "coder", "file:/models/coder.gguf", ("GPU-1",), 2, 4096, reservation_mib=(5000,))
    facts = EngineFacts("llama_cpp", "0.3.36", 2, 4096, False, False, (5100,))
    reported = WorkerReported(spec, WorkerState.READY, facts, Endpoint("a:1", "secret"))
    driver.report(snapshot=Snapshot(full=False, workers=(reported,)))
    assert driver.state.ledger.held(("garage", "GPU-1")) == 5100
    assert driver.only(effects.AttachWorker).worker_id == "worker-x"
    driver.handle(events.WorkerAttached("worker-x"))
    assert driver.task(driver.submit()).state is TaskState.RUNNING


def test_a_busy_worker_is_stopped_only_if_told_so() -> None:
    driver, _, spec = running_brain()
    with pytest.raises(FailedPrecondition, match="even_if_busy"):
        driver.handle(events.WorkerStopAsked(spec.worker_id, even_if_busy=False))
    driver.handle(events.WorkerStopAsked(spec.worker_id, even_if_busy=True))
    assert driver.only(effects.StopWorker)


def test_a_node_is_forgotten_only_when_it_is_silent() -> None:
    driver, task_id, _ = running_brain()
    with pytest.raises(FailedPrecondition):
        driver.handle(events.NodeForgotten("garage"))
    driver.advance(6)
    driver.handle(events.NodeForgotten("garage"))
    assert driver.task(task_id).losses == (Loss.NODE,)
    assert not driver.state.fleet.workers
    assert driver.state.ledger.capacity(("garage", "GPU-1")) == 0


def test_a_device_that_does_not_answer_is_not_used() -> None:
    driver = BrainDriver()
    driver.add_model()
    driver.add_node("garage", gpu(usable=False), gpu("GPU-2", total_mib=8192))
    driver.submit()
    driver.stage(size_mib=1000)
    assert driver.only(effects.StartWorker).spec.device_ids == ("GPU-2",)


def test_what_the_operator_has_to_do_about_a_node_is_told_until_it_reports() -> None:
    driver = BrainDriver()
    driver.add_node()
    driver.handle(events.NodeTroubled("garage", "upgrade it"))
    driver.add_node()
    assert driver.state.fleet.nodes["garage"].trouble == "upgrade it", "it registers again and again"
    driver.report()
    assert not driver.state.fleet.nodes["garage"].trouble
    driver.handle(events.NodeTroubled("another", "it has been forgotten meanwhile"))
