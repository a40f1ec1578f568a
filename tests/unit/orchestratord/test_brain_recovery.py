"""Commands that are lost, hosts that restart or never come back: nothing waits for what will not happen."""

import pytest

from llorch.errors import Reason, Unavailable
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.facts.attempt import Loss
from orchestratord.core.facts.fleet import Endpoint, EngineFacts, Snapshot, WorkerReported
from orchestratord.core.facts.model import ModelSpec, Origin
from orchestratord.core.facts.task import TaskError, TaskState
from orchestratord.core.state import BrainConfig
from support.brain_driver import BrainDriver, gpu, gpu_of


def loaded_brain(**config: float) -> tuple[BrainDriver, str, WorkerSpec]:
    """A task that runs on the only node, `garage`."""
    driver = BrainDriver(BrainConfig(**config))  # type: ignore[arg-type]  # tests name fields
    driver.add_model("coder", slots=1)
    driver.add_node()
    task_id = driver.submit()
    spec = driver.load()
    driver.forget_effects()
    return driver, task_id, spec


def starting_brain() -> tuple[BrainDriver, str]:
    """A task whose worker has been started and is not ready yet."""
    driver = BrainDriver()
    driver.add_model("coder")
    driver.add_node(instance_id="pm-1")
    task_id = driver.submit()
    driver.stage()
    driver.handle(events.WorkerStartAccepted(driver.only(effects.StartWorker).spec.worker_id, 7))
    driver.forget_effects()
    return driver, task_id


def as_reported(spec: WorkerSpec, state: WorkerState) -> Snapshot:
    facts = EngineFacts("sim", "1", spec.slots, spec.context_per_slot, True, False, spec.reservation_mib)
    return Snapshot(full=False, workers=(WorkerReported(spec, state, facts, Endpoint("a:1", "secret")),))


def reason_of(driver: BrainDriver, task_id: str) -> Reason:
    terminal = driver.task(task_id).terminal
    assert isinstance(terminal, TaskError)
    return terminal.reason


def keep_alive(driver: BrainDriver, node_id: str, seconds: float) -> None:
    """Time passes, and only this node reports."""
    end = driver.now + seconds
    while driver.now < end:
        driver.advance(1)
        driver.report(node_id)


def test_a_load_that_dies_with_its_pool_manager_is_begun_anew() -> None:
    driver, task_id = starting_brain()
    driver.now += 1
    driver.add_node(instance_id="pm-2", staged={"file:/models/coder.gguf": 4096})
    driver.load()
    assert driver.task(task_id).state is TaskState.RUNNING
    assert len(driver.state.fleet.workers) == 1


def test_a_link_that_comes_back_ends_no_load() -> None:
    driver, _ = starting_brain()
    driver.now += 1
    driver.add_node(instance_id="pm-1", staged={"file:/models/coder.gguf": 4096})
    assert not driver.all_of(effects.StartWorker)
    assert len(driver.state.fleet.workers) == 1


def test_a_task_waits_for_no_worker_of_a_host_that_is_gone() -> None:
    driver, _, _ = loaded_brain()
    driver.add_node("attic", staged={"file:/models/coder.gguf": 4096})
    waiting = driver.submit()
    keep_alive(driver, "attic", 6)
    assert driver.only(effects.StartWorker).node_id == "attic"
    driver.load(node_id="attic")
    assert driver.task(waiting).state is TaskState.RUNNING


def test_a_load_on_a_host_that_is_gone_is_begun_elsewhere() -> None:
    driver, task_id = starting_brain()
    driver.add_node("attic", staged={"file:/models/coder.gguf": 4096})
    keep_alive(driver, "attic", 6)
    driver.load(node_id="attic")
    assert driver.task(task_id).state is TaskState.RUNNING


def test_a_host_without_a_usable_device_lets_no_task_wait_for_ever() -> None:
    driver = BrainDriver()
    driver.add_model()
    driver.add_node()
    task_id = driver.submit()
    driver.report(snapshot=Snapshot(full=True, devices=(gpu(usable=False),)))
    driver.stage()
    keep_alive(driver, "garage", 31)
    assert reason_of(driver, task_id) is Reason.NO_DEVICE
    with pytest.raises(Unavailable, match="RTX 3090 of garage does not answer"):
        driver.submit()


def test_a_model_whose_only_host_is_silent_for_a_moment_waits_for_it() -> None:
    driver = BrainDriver()
    driver.add_model("coder", size_mib=14_000)
    driver.add_node("garage")
    driver.add_node("attic", gpu_of("attic", total_mib=8192))
    task_id = driver.submit()
    keep_alive(driver, "attic", 20)
    assert driver.task(task_id).state is TaskState.QUEUED
    keep_alive(driver, "attic", 15)
    assert reason_of(driver, task_id) is Reason.NO_DEVICE
    with pytest.raises(Unavailable, match="node 'garage' is away: it has not reported for 35 s"):
        driver.submit()


def test_a_host_that_is_just_ending_is_waited_for() -> None:
    driver = BrainDriver()
    driver.add_model(size_mib=4096)
    driver.add_node(staged={"file:/models/coder.gguf": 4096})
    task_id = driver.submit()
    spec = driver.only(effects.StartWorker).spec
    driver.handle(events.WorkerStartFailed(spec.worker_id, Reason.DRAINING, "it ends"))
    assert len(driver.all_of(effects.StartWorker)) == 1
    driver.advance(10)
    driver.add_node(instance_id="restarted", staged={"file:/models/coder.gguf": 4096})
    driver.load()
    assert driver.task(task_id).state is TaskState.RUNNING


def test_a_worker_that_can_not_be_reached_is_not_loaded_again_and_again() -> None:
    driver, task_id = starting_brain()
    spec = next(iter(driver.state.fleet.workers.values())).spec
    driver.report(snapshot=as_reported(spec, WorkerState.READY))
    driver.handle(events.WorkerSilent(spec.worker_id))
    driver.advance(2.25)
    assert driver.only(effects.StopWorker).worker_id == spec.worker_id
    assert reason_of(driver, task_id) is Reason.UPSTREAM_UNAVAILABLE


def test_a_load_that_failed_on_one_host_does_not_wait_for_another_without_devices() -> None:
    driver = BrainDriver()
    driver.add_model()
    driver.add_node("garage")
    driver.add_node("attic", gpu(usable=False))
    task_id = driver.submit()
    driver.handle(events.StagingFailed("garage", "file:/models/coder.gguf", Reason.MODEL_FILE_MISSING, "no"))
    assert reason_of(driver, task_id) is Reason.MODEL_FILE_MISSING


def test_a_model_that_gets_another_source_while_its_file_is_staged_is_staged_anew() -> None:
    driver = BrainDriver()
    driver.add_model()
    driver.add_node()
    task_id = driver.submit()
    driver.handle(events.ModelRegistered(ModelSpec("coder", "file:/models/better.gguf"), Origin.CALL, "a test"))
    driver.stage()
    assert [effect.source for effect in driver.all_of(effects.StageModel)][1:] == ["file:/models/better.gguf"]
    driver.stage("better")
    driver.load()
    assert driver.task(task_id).state is TaskState.RUNNING


def test_a_stop_that_did_not_arrive_is_said_again() -> None:
    driver, _, spec = loaded_brain()
    driver.handle(events.WorkerStopAsked(spec.worker_id, even_if_busy=True))
    driver.report(snapshot=as_reported(spec, WorkerState.READY))
    assert [effect.worker_id for effect in driver.all_of(effects.StopWorker)] == [spec.worker_id] * 2


def test_a_start_whose_answer_got_lost_takes_no_worker_that_is_ready() -> None:
    driver = BrainDriver()
    driver.add_model(size_mib=4096)
    driver.add_node(staged={"file:/models/coder.gguf": 4096})
    task_id = driver.submit()
    spec = driver.only(effects.StartWorker).spec
    driver.worker_ready(spec)
    driver.handle(events.WorkerStartFailed(spec.worker_id, Reason.DEADLINE_PASSED, "no answer within 10 s"))
    assert driver.task(task_id).state is TaskState.RUNNING
    driver.report(snapshot=Snapshot(full=True, devices=(gpu(),)))
    assert driver.task(task_id).losses == (Loss.NODE,)


def test_a_worker_that_its_node_stops_gets_nothing_new() -> None:
    driver, _, spec = loaded_brain()
    waiting = driver.submit()
    driver.report(snapshot=as_reported(spec, WorkerState.STOPPING))
    driver.finish_attempt(next(iter(driver.state.attempts)))
    assert driver.task(waiting).state is TaskState.QUEUED


def test_a_cancel_that_did_not_arrive_is_said_again_when_the_worker_is_back() -> None:
    driver, task_id, spec = loaded_brain()
    driver.handle(events.WorkerSilent(spec.worker_id))
    driver.handle(events.TaskCancelled(task_id))
    driver.forget_effects()
    driver.handle(events.WorkerAttached(spec.worker_id))
    assert driver.only(effects.CancelRun).worker_id == spec.worker_id


def test_what_a_full_report_leaves_out_is_gone() -> None:
    driver = BrainDriver()
    driver.add_model()
    driver.add_node("garage", gpu(), gpu("GPU-2"), staged={"file:/models/coder.gguf": 4096})
    driver.report(snapshot=Snapshot(full=True, devices=(gpu("GPU-2"),)))
    node = driver.state.fleet.nodes["garage"]
    assert (list(node.devices), node.staged) == (["GPU-2"], {})
    assert driver.state.ledger.capacity(("garage", "GPU-1")) == 0


def test_a_start_that_is_told_again_after_a_break_changes_no_times() -> None:
    driver, task_id, _ = loaded_brain()
    attempt_id = next(iter(driver.state.attempts))
    driver.handle(events.AttemptStarted(attempt_id))
    started_at = driver.task(task_id).started_at
    driver.advance(1)
    driver.handle(events.AttemptStarted(attempt_id))
    assert driver.task(task_id).started_at == started_at


def test_a_reader_that_leaves_again_gets_the_whole_grace_again() -> None:
    driver, task_id, _ = loaded_brain(disconnect_grace_s=2)
    driver.handle(events.ReaderLeft(task_id))
    driver.advance(1)
    driver.handle(events.ReaderAttached(task_id))
    driver.advance(0.5)
    driver.handle(events.ReaderLeft(task_id))
    driver.advance(1.75)
    assert driver.task(task_id).state is TaskState.RUNNING
    driver.advance(0.5)
    assert driver.task(task_id).state is TaskState.CANCELLED


def test_no_task_is_forgotten_before_its_readers_were_told_of_its_end() -> None:
    driver = BrainDriver(BrainConfig(tasks_retained=1))
    driver.add_model()
    driver.add_node()
    task_ids = [driver.submit(durable=True) for _ in range(3)]
    for task_id in task_ids:
        driver.handle(events.TaskCancelled(task_id))
    assert not driver.all_of(effects.ForgetTask)
    for task_id in task_ids:
        driver.handle(events.TerminalPersisted(task_id))
    assert [effect.task_id for effect in driver.all_of(effects.AppendTerminal)] == task_ids
    assert [effect.task_id for effect in driver.all_of(effects.ForgetTask)] == task_ids[:2]
