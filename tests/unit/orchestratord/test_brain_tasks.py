"""The way of a task through the brain, from submission to its one terminal."""

import pytest

from llorch.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Reason,
    ResourceExhausted,
    Unavailable,
)
from llorch.finish_reason import FinishReason
from orchestratord.core import effects, events
from orchestratord.core.facts.task import Stopped, TaskEnd, TaskError, TaskState
from orchestratord.core.lives import attempt_loss
from orchestratord.core.lives.task_life import LINE_IS_BACK_WITHIN_S, STOPS_WITHIN_S
from orchestratord.core.state import BrainConfig
from support.brain_driver import BrainDriver, gpu_of


def ready_brain(slots: int = 1, **config: object) -> BrainDriver:
    """One node, one model, one worker that is loaded and attached; the task that brought it is finished."""
    driver = BrainDriver(BrainConfig(**config))  # type: ignore[arg-type]  # tests name fields
    driver.add_model("coder", slots=slots)
    driver.add_node()
    driver.submit()
    driver.load()
    driver.finish_attempt(driver.only(effects.StartRun).attempt_id)
    driver.forget_effects()
    return driver


@pytest.mark.req("ORCH-1015", "ORCH-1004")
def test_a_first_task_stages_loads_runs_and_ends() -> None:
    driver = BrainDriver()
    driver.add_model("coder")
    driver.add_node()
    task_id = driver.submit()
    assert driver.only(effects.StageModel).source == "file:/models/coder.gguf"
    driver.stage()
    spec = driver.only(effects.StartWorker).spec
    assert driver.state.ledger.held(("garage", "GPU-1")) == spec.reservation_mib[0] > 4096
    driver.worker_ready(spec)
    run = driver.only(effects.StartRun)
    assert run.request.task_id == task_id
    assert driver.only(effects.AnnouncePlacement).placement.devices[0].name == "RTX 3090"
    driver.now += 0.5
    driver.handle(events.AttemptFirstToken(run.attempt_id))
    driver.finish_attempt(run.attempt_id)
    terminal = driver.only(effects.AppendTerminal).terminal
    assert isinstance(terminal, TaskEnd)
    assert terminal.first_token_ms == 500
    driver.handle(events.ReaderLeft(task_id))
    assert driver.only(effects.ReleaseRuns).attempt_ids == (run.attempt_id,)
    assert driver.task(task_id).state is TaskState.COMPLETED


@pytest.mark.req("ORCH-1010")
def test_a_task_is_bound_only_when_a_slot_is_free() -> None:
    driver = ready_brain(slots=2)
    ids = [driver.submit() for _ in range(3)]
    runs = driver.all_of(effects.StartRun)
    assert [run.request.task_id for run in runs] == ids[:2]
    assert driver.task(ids[2]).state is TaskState.QUEUED
    driver.finish_attempt(runs[1].attempt_id)
    assert driver.last(effects.StartRun).request.task_id == ids[2]


def test_an_unknown_model_is_refused_and_nothing_changes() -> None:
    driver = ready_brain()
    with pytest.raises(NotFound):
        driver.submit("coda")
    assert not driver.effects


def test_an_unknown_priority_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="interactive, batch"):
        ready_brain().submit(priority="urgent")


def test_without_any_node_a_task_is_refused_at_once() -> None:
    driver = BrainDriver()
    driver.add_model()
    with pytest.raises(Unavailable) as refused:
        driver.submit()
    assert refused.value.reason is Reason.NO_DEVICE


def test_a_full_queue_refuses_and_keeps_the_tasks_that_wait() -> None:
    driver = ready_brain(queue_capacity=1)
    driver.submit()
    waiting = driver.submit()
    with pytest.raises(ResourceExhausted):
        driver.submit()
    assert driver.task(waiting).state is TaskState.QUEUED


def test_a_model_that_fits_no_device_is_refused_when_its_size_is_known() -> None:
    driver = BrainDriver()
    driver.add_model("huge", size_mib=40_000)
    driver.add_node()
    with pytest.raises(FailedPrecondition) as refused:
        driver.submit("huge")
    assert refused.value.reason is Reason.MODEL_FITS_NO_DEVICE
    assert "24576 MiB when empty" in refused.value.message


def test_a_model_that_turns_out_too_large_ends_its_tasks_with_the_reason() -> None:
    driver = BrainDriver()
    driver.add_model("huge")
    driver.add_node()
    driver.submit("huge")
    driver.stage("huge", size_mib=40_000)
    terminal = driver.only(effects.AppendTerminal).terminal
    assert isinstance(terminal, TaskError)
    assert terminal.reason is Reason.MODEL_FITS_NO_DEVICE


def test_a_file_that_can_not_be_staged_ends_the_tasks_and_is_tried_again_for_the_next() -> None:
    driver = BrainDriver()
    driver.add_model()
    driver.add_node()
    driver.submit()
    driver.handle(
        events.StagingFailed("garage", "file:/models/coder.gguf", Reason.MODEL_FILE_INVALID, "coder.gguf is HTML")
    )
    terminal = driver.only(effects.AppendTerminal).terminal
    assert isinstance(terminal, TaskError)
    assert (terminal.reason, terminal.message) == (Reason.MODEL_FILE_INVALID, "coder.gguf is HTML (on garage)")
    driver.submit()
    assert len(driver.all_of(effects.StageModel)) == 2


def test_a_worker_that_fails_to_load_ends_the_tasks_with_its_last_words_and_frees_the_memory() -> None:
    driver = BrainDriver()
    driver.add_model()
    driver.add_node()
    driver.submit()
    driver.stage()
    spec = driver.only(effects.StartWorker).spec
    driver.worker_ended(spec, failure=(Reason.MODEL_LOAD_FAILED, "out of memory"))
    terminal = driver.only(effects.AppendTerminal).terminal
    assert isinstance(terminal, TaskError)
    assert terminal.message == "out of memory (on garage)"
    assert driver.state.ledger.held(("garage", "GPU-1")) == 0


@pytest.mark.req("ORCH-1006")
def test_a_queued_task_is_cancelled_at_once() -> None:
    driver = ready_brain()
    driver.submit()
    queued = driver.submit()
    driver.handle(events.TaskCancelled(queued))
    terminal = driver.only(effects.AppendTerminal).terminal
    assert isinstance(terminal, Stopped)
    assert terminal.finish_reason is FinishReason.CANCELLED
    assert not driver.all_of(effects.CancelRun)


@pytest.mark.req("ORCH-1006")
def test_a_running_task_is_cancelled_at_once_and_has_its_end_and_its_slot_is_free_when_the_worker_says_so() -> None:
    driver = ready_brain()
    running, waiting = driver.submit(), driver.submit()
    driver.handle(events.TaskCancelled(running))
    assert driver.task(running).state is TaskState.CANCELLED
    cancelled = driver.only(effects.CancelRun).attempt_id
    assert driver.task(waiting).state is TaskState.QUEUED
    driver.finish_attempt(cancelled)
    assert driver.task(waiting).state is TaskState.RUNNING
    assert len(driver.all_of(effects.AppendTerminal)) == 1


def test_cancelling_twice_changes_nothing() -> None:
    driver = ready_brain()
    task_id = driver.submit()
    driver.handle(events.TaskCancelled(task_id))
    driver.forget_effects()
    driver.handle(events.TaskCancelled(task_id))
    assert not driver.effects


@pytest.mark.req("ORCH-1007")
def test_a_task_without_a_reader_is_cancelled_after_the_grace() -> None:
    driver = ready_brain()
    task_id = driver.submit()
    driver.handle(events.ReaderLeft(task_id))
    driver.advance(1.9)
    driver.report()
    assert driver.task(task_id).state is TaskState.RUNNING
    driver.advance(0.2)
    assert driver.task(task_id).state is TaskState.CANCELLED


def test_a_reader_that_comes_back_within_the_grace_keeps_the_task() -> None:
    driver = ready_brain()
    task_id = driver.submit()
    driver.handle(events.ReaderLeft(task_id))
    driver.advance(1)
    driver.handle(events.ReaderAttached(task_id))
    driver.advance(2)
    assert driver.task(task_id).state is TaskState.RUNNING


def test_a_reader_whose_line_broke_has_the_time_for_which_its_gateway_looks_for_the_orchestrator() -> None:
    driver = ready_brain()
    task_id = driver.submit()
    driver.handle(events.ReaderLeft(task_id, may_return=True))
    driver.let_pass(LINE_IS_BACK_WITHIN_S - 1)
    assert driver.task(task_id).state is TaskState.RUNNING
    driver.let_pass(2)
    assert driver.task(task_id).state is TaskState.CANCELLED


def test_a_reader_that_may_return_is_waited_for_also_when_another_one_leaves() -> None:
    driver = ready_brain()
    task_id = driver.submit()
    driver.handle(events.ReaderAttached(task_id))
    driver.handle(events.ReaderLeft(task_id, may_return=True))
    driver.handle(events.ReaderLeft(task_id))
    driver.let_pass(10)
    assert not driver.task(task_id).is_finished


@pytest.mark.parametrize("is_forgotten", [False, True])
def test_the_run_of_a_call_is_kept_by_its_worker_until_its_readers_have_left(is_forgotten: bool) -> None:
    """An orchestrator that is started anew before that finds the end of the call nowhere else."""
    driver = ready_brain()
    task_id = driver.submit()
    run = driver.only(effects.StartRun)
    driver.finish_attempt(run.attempt_id)
    assert driver.only(effects.AppendTerminal)
    assert not driver.all_of(effects.ReleaseRuns)
    if is_forgotten:
        driver.let_pass(driver.state.config.task_retention_s + 1)
    else:
        driver.handle(events.ReaderLeft(task_id))
    assert driver.last(effects.ReleaseRuns).attempt_ids == (run.attempt_id,)


def test_the_run_of_a_call_is_kept_for_a_reader_that_left_in_its_midst_and_may_come_back() -> None:
    driver = ready_brain()
    task_id = driver.submit()
    run = driver.only(effects.StartRun)
    driver.handle(events.ReaderLeft(task_id))
    driver.finish_attempt(run.attempt_id)
    assert not driver.all_of(effects.ReleaseRuns)
    driver.let_pass(driver.config.disconnect_grace_s + 1)
    assert driver.only(effects.ReleaseRuns).attempt_ids == (run.attempt_id,)
    assert driver.task(task_id).state is TaskState.COMPLETED


@pytest.mark.parametrize("others", [0, 1])
def test_the_run_of_a_call_is_kept_for_a_reader_whose_line_broke_at_its_end(others: int) -> None:
    """Also when other readers leave after it."""
    driver = ready_brain()
    task_id = driver.submit()
    run = driver.only(effects.StartRun)
    for _ in range(others):
        driver.handle(events.ReaderAttached(task_id))
    driver.finish_attempt(run.attempt_id)
    driver.handle(events.ReaderLeft(task_id, may_return=True))
    for _ in range(others):
        driver.handle(events.ReaderLeft(task_id))
    driver.let_pass(LINE_IS_BACK_WITHIN_S - 1)
    assert not driver.all_of(effects.ReleaseRuns)
    driver.handle(events.ReaderAttached(task_id))
    driver.let_pass(2)
    assert not driver.all_of(effects.ReleaseRuns)
    driver.handle(events.ReaderLeft(task_id))
    assert driver.only(effects.ReleaseRuns).attempt_ids == (run.attempt_id,)


def test_a_durable_task_needs_no_reader_and_shows_its_terminal_only_when_it_is_kept() -> None:
    driver = ready_brain()
    task_id = driver.submit(durable=True)
    driver.advance(4)
    run = driver.only(effects.StartRun)
    driver.finish_attempt(run.attempt_id)
    assert driver.only(effects.PersistTask).request.task_id == task_id
    assert driver.only(effects.PersistTerminal).task_id == task_id
    assert not driver.all_of(effects.AppendTerminal)
    assert not driver.all_of(effects.ReleaseRuns)
    driver.handle(events.TerminalPersisted(task_id))
    assert driver.only(effects.AppendTerminal).task_id == task_id
    assert driver.only(effects.ReleaseRuns).attempt_ids == (run.attempt_id,)


@pytest.mark.req("ORCH-1003")
def test_a_deadline_ends_a_waiting_task_with_an_error_and_a_running_one_with_what_there_is() -> None:
    driver = ready_brain()
    running, waiting = driver.submit(deadline_s=1.0), driver.submit(deadline_s=1.0)
    driver.advance(1.25)
    driver.advance(STOPS_WITHIN_S)
    ends = {effect.task_id: effect.terminal for effect in driver.all_of(effects.AppendTerminal)}
    assert isinstance(ends[running], Stopped)
    expired = ends[waiting]
    assert isinstance(expired, TaskError)
    assert expired.reason is Reason.DEADLINE_PASSED
    assert driver.task(running).state is driver.task(waiting).state is TaskState.EXPIRED
    assert driver.only(effects.CancelRun)


def test_the_same_request_id_is_the_same_task_and_with_other_content_is_refused() -> None:
    driver = ready_brain()
    first = driver.submit(request_id="r1")
    driver.submit(request_id="r1")
    assert [task.task_id for task in driver.state.tasks.values() if task.request.request_id] == [first]
    with pytest.raises(AlreadyExists) as refused:
        driver.submit(request_id="r1", content_digest="other")
    assert refused.value.reason is Reason.REQUEST_ID_REUSED


def test_a_finished_task_is_forgotten_after_its_retention_and_its_id_is_then_expired() -> None:
    driver = ready_brain(task_retention_s=5)
    task_id = driver.submit()
    driver.finish_attempt(driver.only(effects.StartRun).attempt_id)
    driver.advance(6)
    assert task_id in [effect.task_id for effect in driver.all_of(effects.ForgetTask)]
    with pytest.raises(NotFound) as refused:
        driver.state.task(task_id)
    assert refused.value.reason is Reason.EXPIRED
    with pytest.raises(NotFound) as unknown:
        driver.state.task("task-x")
    assert unknown.value.reason is Reason.TASK_NOT_FOUND


def test_finished_tasks_are_also_bounded_by_count() -> None:
    driver = ready_brain(tasks_retained=2)
    for _ in range(4):
        driver.submit()
        driver.finish_attempt(driver.last(effects.StartRun).attempt_id)
    assert len(driver.state.tasks) == 2


def test_idle_models_leave_for_one_that_a_task_waits_for() -> None:
    driver = BrainDriver()
    driver.add_node("garage", gpu_of("garage", total_mib=12_000))
    for name in ("first", "second"):
        driver.add_model(name, context=256, slots=1)
    driver.submit("first")
    driver.stage("first", size_mib=8000)
    first = driver.last(effects.StartWorker).spec
    driver.worker_ready(first)
    run = driver.only(effects.StartRun)
    driver.submit("second")
    driver.stage("second", size_mib=8000)
    assert not driver.all_of(effects.StopWorker), "a busy worker stays"
    driver.finish_attempt(run.attempt_id)
    assert driver.only(effects.StopWorker).worker_id == first.worker_id, "it has served what waited for it"
    driver.worker_ended(first)
    assert driver.last(effects.StartWorker).spec.model == "second"


def test_a_task_that_runs_at_once_has_no_task_before_it_however_many_wait_for_other_models() -> None:
    driver = BrainDriver()
    driver.add_model("coder", size_mib=8000, slots=1)
    driver.add_model("tiny", size_mib=500, slots=1)
    driver.add_node(staged={"file:/models/coder.gguf": 8000, "file:/models/tiny.gguf": 500})
    for model in ("tiny", "coder"):
        driver.submit(model)
        driver.load(model)
    driver.finish_attempt(next(iter(driver.state.attempts)))
    driver.submit("coder")
    driver.forget_effects()
    running = driver.submit("tiny")
    assert driver.task(running).state is TaskState.RUNNING
    assert driver.only(effects.OpenLog).queue_position == 0


def test_a_task_that_the_store_could_not_take_fails_and_has_had_no_slot() -> None:
    driver = ready_brain()
    driver.store_answers = False
    task_id = driver.submit(durable=True)
    driver.handle(events.TaskNotKept(task_id, "the disk is full"))
    assert driver.task(task_id).state is TaskState.FAILED
    assert not driver.all_of(effects.StartRun)
    assert driver.only(effects.PersistTerminal).task_id == task_id
    driver.handle(events.TaskNotKept(task_id, "the disk is full"))
    driver.handle(events.TaskNotKept("task-forgotten", "the disk is full"))


def test_of_a_finished_task_the_work_is_not_kept_and_a_repeated_request_is_still_known() -> None:
    driver = ready_brain()
    task_id = driver.submit(durable=True, request_id="r1", payload=b"a long prompt")
    driver.finish_attempt(driver.only(effects.StartRun).attempt_id)
    assert driver.task(task_id).request.payload == b""
    driver.handle(events.TerminalPersisted(task_id))
    assert driver.task(task_id).attempt is None
    driver.submit(durable=True, request_id="r1", payload=b"a long prompt")
    assert [task.task_id for task in driver.state.tasks.values() if task.request.request_id] == [task_id]
    with pytest.raises(AlreadyExists):
        driver.submit(request_id="r1", content_digest="other")


@pytest.mark.parametrize("how", ["cancelled", "failed", "waiting"])
def test_however_a_task_ends_its_work_goes(how: str) -> None:
    driver = ready_brain()
    task_id = driver.submit(payload=b"a long prompt")
    if how == "failed":
        failed = TaskError(Reason.ENGINE_FAILED, "the engine failed")
        driver.handle(events.AttemptEnded(driver.only(effects.StartRun).attempt_id, failed))
    elif how == "cancelled":
        driver.handle(events.TaskCancelled(task_id))
    else:
        task_id = driver.submit(payload=b"a long prompt", deadline_s=1.0)
        driver.advance(2)
    assert driver.task(task_id).is_finished
    assert driver.task(task_id).request.payload == b""


def test_a_task_that_goes_on_elsewhere_has_its_work_still() -> None:
    driver = ready_brain()
    task_id = driver.submit(payload=b"a long prompt")
    attempt_loss.move(driver.state, driver.task(task_id), "because")
    assert driver.task(task_id).request.payload == b"a long prompt"


def test_where_outputs_are_too_large_the_oldest_finished_task_goes_and_then_the_largest_that_runs() -> None:
    driver = ready_brain(slots=3)
    oldest = next(iter(driver.state.finished))
    newest, running, small = (driver.submit() for _ in range(3))
    driver.finish_attempt(driver.all_of(effects.StartRun)[0].attempt_id)
    too_large = events.OutputsTooLarge(running)
    driver.handle(too_large)
    with pytest.raises(NotFound) as gone:
        driver.state.task(oldest)
    assert gone.value.reason is Reason.EXPIRED
    assert driver.task(newest).is_finished
    driver.handle(too_large)
    assert driver.task(running).state is TaskState.RUNNING
    driver.handle(too_large)
    failed = driver.task(running).terminal
    assert isinstance(failed, TaskError)
    assert (failed.reason, failed.retryable) == (Reason.OUTPUT_TOO_LARGE, False)
    assert driver.last(effects.CancelRun)
    driver.handle(events.OutputsTooLarge(""))
    driver.handle(events.OutputsTooLarge(""))
    assert not driver.task(small).is_finished


def test_a_task_whose_output_is_too_large_fails_with_what_to_ask_for() -> None:
    driver = ready_brain()
    task_id = driver.submit()
    for _ in range(2):
        driver.handle(events.OutputTooLarge(task_id, 12 * 2**20))
    failed = driver.task(task_id).terminal
    assert isinstance(failed, TaskError)
    assert (failed.reason, failed.retryable) == (Reason.OUTPUT_TOO_LARGE, False)
    assert "12 MiB" in failed.message
    assert driver.only(effects.CancelRun)
