"""A task goes on when an attempt of it is lost or out of reach: from its output, once, and where it can."""

import pytest

from llorch.errors import Reason
from llorch.finish_reason import FinishReason
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.facts.attempt import Loss
from orchestratord.core.facts.fleet import Snapshot, WorkerReported
from orchestratord.core.facts.rules import Lane
from orchestratord.core.facts.suspicion import Suspicion
from orchestratord.core.facts.task import ChoiceEnd, RunResult, TaskEnd, TaskError, TaskState
from orchestratord.core.lives.attempt_loss import MOST_FRUITLESS
from orchestratord.core.placement import availability
from support.brain_driver import BrainDriver, gpu_of
from support.two_workers import HOSTS, crash, fall_silent, hang, host_of, start, stops_answering, two_workers

MEMORY_BACK_S = 5.0
"""After a worker has ended, where its host tells nothing of its card."""


def start_again(driver: BrainDriver, host: str) -> WorkerSpec:
    """Its model is loaded there anew."""
    start = driver.last(effects.StartWorker)
    assert start.node_id == host
    driver.handle(events.WorkerStartAccepted(start.spec.worker_id, 9))
    driver.worker_ready(start.spec, host)
    return start.spec


@pytest.mark.req("ORCH-1008")
def test_when_its_worker_ends_a_task_goes_on_at_once_on_another() -> None:
    driver, _ = two_workers()
    task_id, first = start(driver)
    crash(driver, first.worker_id)
    second = driver.last(effects.StartRun)
    assert (second.request.task_id, second.number) == (task_id, 2)
    assert second.worker_id != first.worker_id
    assert driver.last(effects.AnnouncePlacement).placement.lost is Loss.EXIT
    assert not driver.all_of(effects.AppendTerminal)


def test_it_goes_on_before_all_that_came_after_it() -> None:
    driver, _ = two_workers()
    first_task, first = start(driver)
    start(driver)
    later = driver.submit()
    crash(driver, first.worker_id)
    assert driver.state.queue[first_task].arrival < driver.state.queue[later].arrival


@pytest.mark.req("ORCH-1008")
def test_a_task_whose_worker_is_out_of_reach_goes_on_elsewhere_and_the_first_to_bring_output_counts() -> None:
    driver, _ = two_workers()
    task_id, first = start(driver)
    fall_silent(driver, first.worker_id)
    second = driver.last(effects.StartRun)
    assert second.number == 2
    assert not driver.all_of(effects.CancelRun), "the first one lives on"
    driver.handle(events.AttemptDecided(second.attempt_id))
    assert driver.only(effects.CancelRun).attempt_id == first.attempt_id
    driver.handle(events.WorkerAttached(first.worker_id))
    assert [told.attempt_id for told in driver.all_of(effects.CancelRun)] == [first.attempt_id] * 2, "told once more"
    assert driver.task(task_id).attempt is driver.state.attempts[second.attempt_id]


@pytest.mark.req("ORCH-1008")
def test_a_worker_that_is_back_before_the_other_has_brought_output_goes_on() -> None:
    driver, _ = two_workers()
    task_id, first = start(driver)
    fall_silent(driver, first.worker_id)
    second = driver.last(effects.StartRun)
    driver.handle(events.WorkerAttached(first.worker_id))
    assert not driver.all_of(effects.CancelRun), "it is not decided by being there"
    driver.handle(events.AttemptDecided(first.attempt_id))
    assert driver.only(effects.CancelRun).attempt_id == second.attempt_id
    driver.finish_attempt(second.attempt_id)
    assert driver.task(task_id).state is TaskState.RUNNING, "its end does not count"
    driver.finish_attempt(first.attempt_id)
    assert driver.task(task_id).state is TaskState.COMPLETED


def test_a_worker_that_is_back_while_its_task_waits_goes_on() -> None:
    driver, specs = two_workers()
    task_id, first = start(driver)
    start(driver)
    assert len(specs) == len(driver.state.attempts)
    fall_silent(driver, first.worker_id)
    assert driver.task(task_id).state is TaskState.QUEUED
    driver.handle(events.WorkerAttached(first.worker_id))
    assert driver.task(task_id).state is TaskState.RUNNING
    assert task_id not in driver.state.queue
    driver.finish_attempt(first.attempt_id)
    assert isinstance(driver.only(effects.AppendTerminal).terminal, TaskEnd)


def test_an_answer_that_was_whole_behind_a_cut_line_is_the_tasks() -> None:
    driver, _ = two_workers()
    task_id, first = start(driver)
    fall_silent(driver, first.worker_id)
    second = driver.last(effects.StartRun)
    driver.handle(events.WorkerAttached(first.worker_id))
    driver.finish_attempt(first.attempt_id)
    assert driver.task(task_id).state is TaskState.COMPLETED
    assert driver.only(effects.CancelRun).attempt_id == second.attempt_id


@pytest.mark.parametrize(
    "outcome",
    [
        RunResult((ChoiceEnd(0, FinishReason.CANCELLED, 4),), tokens_out=4),
        TaskError(Reason.ENGINE_FAILED, "it broke"),
    ],
    ids=["given up", "failed"],
)
def test_another_end_behind_a_cut_line_counts_for_nothing(outcome: RunResult | TaskError) -> None:
    driver, _ = two_workers()
    task_id, first = start(driver)
    fall_silent(driver, first.worker_id)
    second = driver.last(effects.StartRun)
    driver.handle(events.WorkerAttached(first.worker_id))
    driver.handle(events.AttemptEnded(first.attempt_id, outcome))
    assert driver.task(task_id).attempt is driver.state.attempts[second.attempt_id]
    assert first.attempt_id not in driver.state.attempts, "its slot is free"


def test_a_cancelled_task_has_its_attempt_cancelled_that_was_out_of_reach_when_it_is_back() -> None:
    driver, _ = two_workers()
    task_id, first = start(driver)
    start(driver)
    fall_silent(driver, first.worker_id)
    driver.handle(events.TaskCancelled(task_id))
    assert driver.task(task_id).state is TaskState.CANCELLED
    driver.handle(events.WorkerAttached(first.worker_id))
    assert driver.last(effects.CancelRun).attempt_id == first.attempt_id


@pytest.mark.req("ORCH-1008")
def test_what_can_not_be_continued_fails_only_when_its_worker_is_really_gone() -> None:
    driver, _ = two_workers()
    for worker in driver.state.fleet.workers.values():
        driver.worker_ready(worker.spec, worker.node_id)
    task_id, first = start(driver)
    driver.state.attempts[first.attempt_id].resumes = False
    fall_silent(driver, first.worker_id)
    assert driver.task(task_id).state is TaskState.RUNNING
    crash(driver, first.worker_id)
    terminal = driver.only(effects.AppendTerminal).terminal
    assert isinstance(terminal, TaskError)
    assert terminal.reason is Reason.WORKER_LOST


def test_a_worker_that_can_not_continue_output_gets_no_task_that_has_some() -> None:
    driver, specs = two_workers()
    task_id, first = start(driver)
    (other,) = set(HOSTS) - {host_of(driver, first.worker_id)}
    engine = driver.state.fleet.workers[specs[other].worker_id].engine
    assert engine is not None
    driver.state.fleet.workers[specs[other].worker_id].engine = type(engine)(
        "old", "1", 1, 4096, True, False, engine.memory_mib
    )
    crash(driver, first.worker_id)
    assert driver.task(task_id).state is TaskState.QUEUED
    host = driver.last(effects.StartWorker).node_id
    start_again(driver, host)
    assert driver.last(effects.StartRun).number == 2
    assert not driver.all_of(effects.AppendTerminal)


def test_an_attempt_that_is_lost_again_and_again_without_output_is_not_tried_for_ever() -> None:
    driver, _ = two_workers()
    task_id = driver.submit()
    for _ in range(MOST_FRUITLESS):
        driver.handle(events.AttemptUnknown(driver.last(effects.StartRun).attempt_id))
    assert driver.task(task_id).losses == (Loss.UNKNOWN,) * MOST_FRUITLESS
    terminal = driver.only(effects.AppendTerminal).terminal
    assert isinstance(terminal, TaskError)
    assert terminal.reason is Reason.WORKER_LOST


def test_one_that_brings_output_each_time_goes_on_for_ever() -> None:
    driver, _ = two_workers()
    task_id, run = start(driver)
    for _ in range(4 * MOST_FRUITLESS):
        driver.handle(events.AttemptUnknown(run.attempt_id))
        run = driver.last(effects.StartRun)
        driver.handle(events.AttemptFirstToken(run.attempt_id))
    assert driver.task(task_id).state is TaskState.RUNNING


@pytest.mark.parametrize(("reboots", "loss"), [(True, Loss.POWER), (False, Loss.NODE)])
def test_a_node_that_comes_back_without_its_workers_says_whether_the_machine_was_started_again(
    reboots: bool, loss: Loss
) -> None:
    driver, _ = two_workers()
    task_id, run = start(driver)
    host = host_of(driver, run.worker_id)
    for boot in ("boot-1", "boot-2" if reboots else "boot-1"):
        workers = tuple(
            WorkerReported(worker.spec, WorkerState.READY, worker.engine, worker.endpoint)
            for worker in driver.state.fleet.workers_on(host)
            if boot == "boot-1" and not driver.task(task_id).losses and boot != driver.state.fleet.nodes[host].boot_id
        )
        driver.now += 1
        session = driver.sessions[host] = f"link-{driver.now}"
        snapshot = Snapshot(full=True, devices=(gpu_of(host),), workers=workers)
        driver.handle(events.NodeRegistered(host, session, f"pm-{driver.now}", "a:1", "0", snapshot, boot_id=boot))
    assert driver.task(task_id).losses == (loss,)
    assert driver.task(task_id).suspicion.ended == 0, "no loss of its own"


# Loads that fail.


def lost_with_its_only_worker() -> tuple[BrainDriver, str, WorkerSpec]:
    """The task, and the worker that is loaded for it anew."""
    driver = BrainDriver()
    driver.add_model("coder", slots=1)
    driver.add_node()
    task_id = driver.submit()
    spec = driver.load()
    driver.handle(events.AttemptFirstToken(driver.last(effects.StartRun).attempt_id))
    driver.worker_ended(spec, failure=(Reason.WORKER_LOST, "killed"))
    driver.let_pass(MEMORY_BACK_S)
    again = driver.last(effects.StartWorker).spec
    assert again != spec
    driver.forget_effects()
    return driver, task_id, again


def test_a_load_that_fails_for_a_task_that_has_been_running_is_tried_again() -> None:
    driver, task_id, spec = lost_with_its_only_worker()
    driver.worker_ended(spec, failure=(Reason.MODEL_LOAD_FAILED, "killed while it loaded"))
    assert driver.task(task_id).state is TaskState.QUEUED
    assert "another load of the model, as the last one failed: killed" in driver.last(effects.Narrate).text
    driver.let_pass(driver.config.load_retry_s + MEMORY_BACK_S)
    driver.load()
    assert driver.task(task_id).state is TaskState.RUNNING
    assert not driver.state.load_failures


def test_what_happens_just_before_the_tick_that_tries_again_does_not_end_the_task() -> None:
    driver, task_id, spec = lost_with_its_only_worker()
    driver.worker_ended(spec, failure=(Reason.MODEL_LOAD_FAILED, "killed while it loaded"))
    driver.now += driver.config.load_retry_s
    driver.state.look_again = True
    driver.report()
    assert driver.task(task_id).state is TaskState.QUEUED
    driver.let_pass(1)
    assert driver.all_of(effects.StartWorker)


def test_one_that_comes_meanwhile_is_a_reason_to_try_again_at_once() -> None:
    driver, task_id, spec = lost_with_its_only_worker()
    driver.worker_ended(spec, failure=(Reason.MODEL_LOAD_FAILED, "killed while it loaded"))
    driver.submit()
    driver.let_pass(MEMORY_BACK_S)
    driver.load()
    assert driver.task(task_id).state is TaskState.RUNNING


def test_where_the_model_can_not_be_loaded_any_more_the_task_fails_with_the_reason() -> None:
    driver, task_id, spec = lost_with_its_only_worker()
    for failed in range(availability.LOADS_OF_BEGUN):
        assert driver.task(task_id).state is TaskState.QUEUED
        driver.worker_ended(spec, failure=(Reason.MODEL_LOAD_FAILED, "no such tensor"))
        driver.let_pass(driver.config.load_retry_s * 2**failed + MEMORY_BACK_S)
        spec = driver.last(effects.StartWorker).spec if driver.all_of(effects.StartWorker) else spec
    terminal = driver.only(effects.AppendTerminal).terminal
    assert isinstance(terminal, TaskError)
    assert terminal.reason is Reason.MODEL_LOAD_FAILED
    assert len(driver.all_of(effects.StartWorker)) == availability.LOADS_OF_BEGUN - 1


def test_what_waits_for_a_load_is_explained() -> None:
    driver, task_id, spec = lost_with_its_only_worker()
    driver.worker_ended(spec, failure=(Reason.MODEL_LOAD_FAILED, "killed while it loaded"))
    driver.let_pass(1)
    task = driver.task(task_id)
    wait = availability.wait_for_load(driver.state, task)
    assert wait is not None
    assert availability.told_to(driver.state, wait, task).endswith("; for 4 s at most")


# Tasks that end workers.


@pytest.mark.req("ORCH-1008")
def test_what_ends_two_workers_by_itself_is_not_tried_a_third_time() -> None:
    driver, _ = two_workers()
    task_id, run = start(driver, output=False)
    crash(driver, run.worker_id)
    crash(driver, driver.last(effects.StartRun).worker_id)
    terminal = driver.only(effects.AppendTerminal).terminal
    assert isinstance(terminal, TaskError)
    assert terminal.reason is Reason.QUARANTINED
    assert driver.task(task_id).state is TaskState.FAILED
    assert not driver.state.suspects


def test_what_hangs_two_workers_is_not_tried_a_third_time() -> None:
    """A process that does nothing any more ends no more than a crash does by itself: it has to be stopped."""
    driver, _ = two_workers()
    task_id, run = start(driver, output=False)
    hang(driver, run.worker_id)
    assert driver.task(task_id).losses[-1] is Loss.LEASE
    assert driver.state.suspects == {task_id}
    hang(driver, driver.last(effects.StartRun).worker_id)
    terminal = driver.only(effects.AppendTerminal).terminal
    assert isinstance(terminal, TaskError)
    assert terminal.reason is Reason.QUARANTINED
    assert not driver.state.suspects


def test_the_late_end_of_a_worker_is_no_mark_against_what_has_gone_on_elsewhere() -> None:
    """Of a process that hangs in its driver, the end may be told long after its task has gone on."""
    driver, specs = two_workers()
    task_id, run = start(driver)
    stops_answering(driver, run.worker_id)
    again = driver.last(effects.StartRun)
    driver.handle(events.AttemptStarted(again.attempt_id, 5))
    driver.handle(events.AttemptDecided(again.attempt_id))
    spec = next(spec for spec in specs.values() if spec.worker_id == run.worker_id)
    driver.worker_ended(spec, host_of(driver, run.worker_id))
    assert driver.task(task_id).suspicion == Suspicion()
    assert driver.task(task_id).state is TaskState.RUNNING


def test_what_ran_beside_a_task_that_was_given_up_was_not_alone() -> None:
    driver, _ = two_workers(slots=2)
    for _ in range(2):
        driver.submit()
    innocent, poison = driver.all_of(effects.StartRun)[-2:]
    while innocent.worker_id != poison.worker_id:
        driver.submit()
        poison = driver.last(effects.StartRun)
    spec, host = driver.state.fleet.workers[innocent.worker_id].spec, host_of(driver, innocent.worker_id)
    stops_answering(driver, innocent.worker_id)
    driver.handle(events.TaskCancelled(poison.request.task_id))
    driver.worker_ended(spec, host)
    assert driver.task(innocent.request.task_id).suspicion == Suspicion(under=1)


def test_what_was_aboard_a_worker_that_ended_goes_on_at_once_and_beside_each_other() -> None:
    driver, _ = two_workers(slots=8)
    aboard = crash_the_last(driver, after=8)
    assert len(driver.all_of(effects.WatchOutput)) == len(aboard) == 4
    assert {run.request.task_id for run in driver.all_of(effects.StartRun)} == aboard
    assert not driver.state.suspects


def test_suspects_run_one_to_a_worker_until_their_output_has_gone_on() -> None:
    driver, _ = two_workers(slots=8)
    twice = crash_the_last(driver, after=8)
    crash_the_last(driver)
    assert driver.state.suspects == twice, "the others have met it once"
    driver.let_pass(MEMORY_BACK_S)
    start_again(driver, driver.last(effects.StartWorker).node_id)
    (again,) = (run for run in driver.all_of(effects.StartRun) if run.request.task_id in twice)
    assert len(driver.all_of(effects.StartRun)) == 5, "the other four, and a suspect"
    driver.handle(events.AttemptFirstToken(again.attempt_id))
    assert len(driver.all_of(effects.StartRun)) == 5
    driver.handle(events.OutputWentOn(again.request.task_id))
    assert len(driver.all_of(effects.StartRun)) == 6, "the next suspect"
    assert not any(driver.task(task_id).is_finished for task_id in twice)


def crash_the_last(driver: BrainDriver, after: int = 0) -> set[str]:
    """The worker that got the last task, after so many came; those that are aboard."""
    for _ in range(after):
        driver.submit()
    worker_id = driver.last(effects.StartRun).worker_id
    aboard = {run.task_id for run in driver.state.attempts.values() if run.worker_id == worker_id}
    driver.forget_effects()
    crash(driver, worker_id)
    return aboard


def test_an_innocent_that_ran_beside_a_lone_suspect_loses_no_attempt_to_it() -> None:
    driver, specs = two_workers(slots=2)
    suspect, run = start(driver, output=False)
    innocent = driver.submit()
    while host_of(driver, driver.last(effects.StartRun).worker_id) != host_of(driver, run.worker_id):
        innocent = driver.submit()
    driver.task(suspect).suspicion.is_hot = True
    driver.state.suspects.add(suspect)
    crash(driver, run.worker_id)
    assert driver.task(innocent).losses == (Loss.POISON,)
    assert not driver.task(innocent).suspicion.is_hot
    assert (driver.task(suspect).losses, driver.task(suspect).suspicion.ended) == ((Loss.EXIT,), 1)
    assert len(specs) == len(HOSTS)


def test_a_suspect_that_has_to_run_alone_waits_for_an_empty_worker_and_is_left_alone_there() -> None:
    driver, _ = two_workers(slots=2)
    others = [driver.submit() for _ in range(4)]
    driver.forget_effects()
    suspect = driver.submit()
    behind = driver.submit()
    task = driver.task(suspect)
    task.suspicion.is_hot, task.suspicion.ended = True, 2
    driver.state.suspects.add(suspect)
    place = driver.state.queue.remove(suspect)
    driver.state.queue.add(
        suspect,
        place.model,
        place.priority,
        app=place.app,
        lane=Lane("coder", suspect=suspect),
        arrival=place.arrival,
    )
    on = {task_id: driver.task(task_id).attempt for task_id in others}
    one_worker = [attempt for attempt in on.values() if attempt and attempt.worker_id == on[others[0]].worker_id]  # type: ignore[union-attr]
    driver.finish_attempt(one_worker[0].attempt_id)
    assert not driver.all_of(effects.StartRun), "nothing new goes to a worker that has to become empty for it"
    driver.finish_attempt(one_worker[1].attempt_id)
    assert driver.only(effects.StartRun).request.task_id == suspect
    driver.finish_attempt(next(a for a in on.values() if a and a not in one_worker).attempt_id)
    assert driver.last(effects.StartRun).request.task_id == behind
    assert driver.last(effects.StartRun).worker_id != driver.task(suspect).attempt.worker_id  # type: ignore[union-attr]


def test_what_a_task_waited_before_its_first_token_does_not_grow_when_it_goes_on_elsewhere() -> None:
    driver, _ = two_workers()
    task_id, first = start(driver)
    driver.let_pass(4)
    crash(driver, first.worker_id)
    driver.finish_attempt(driver.last(effects.StartRun).attempt_id)
    terminal = driver.task(task_id).terminal
    assert isinstance(terminal, TaskEnd)
    assert terminal.queue_ms <= terminal.first_token_ms < 4000
