"""What happens to a task's attempts at the same time, or in an unusual order: all is told, counted and ended once."""

from collections.abc import Iterable
from dataclasses import replace

from llorch.errors import Reason
from llorch.finish_reason import FinishReason
from llorch.worker_spec import WorkerSpec
from orchestratord.core import effects, events
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.drains import AfterDrain, DrainPolicy
from orchestratord.core.facts.fleet import Pool, Snapshot
from orchestratord.core.facts.found_run import FoundRun, TaskRecord
from orchestratord.core.facts.promise import Fingerprint
from orchestratord.core.facts.suspicion import UNDER_AT_MOST
from orchestratord.core.facts.task import ChoiceEnd, RunResult, TaskEnd, TaskError, TaskState
from support.brain_driver import BrainDriver, gpu
from support.two_workers import crash, fall_silent, start, two_workers


def back_beside_another(driver: BrainDriver) -> tuple[str, effects.StartRun, effects.StartRun]:
    """A task with two attempts at workers that are both attached; neither has brought output since."""
    task_id, first = start(driver)
    fall_silent(driver, first.worker_id)
    second = driver.last(effects.StartRun)
    assert second.number == 2
    driver.handle(events.WorkerAttached(first.worker_id))
    driver.forget_effects()
    return task_id, first, second


def test_when_a_task_is_cancelled_both_of_its_attempts_are() -> None:
    driver, _ = two_workers()
    task_id, first, second = back_beside_another(driver)
    driver.handle(events.TaskCancelled(task_id))
    told = {effect.attempt_id for effect in driver.all_of(effects.CancelRun)}
    assert told == {first.attempt_id, second.attempt_id}


def test_when_a_task_is_done_its_other_attempt_is_cancelled() -> None:
    driver, _ = two_workers()
    task_id, first, second = back_beside_another(driver)
    driver.finish_attempt(second.attempt_id)
    assert driver.task(task_id).state is TaskState.COMPLETED
    assert {effect.attempt_id for effect in driver.all_of(effects.CancelRun)} == {first.attempt_id}


def test_a_deadline_ends_both_attempts() -> None:
    driver, _ = two_workers()
    task_id = driver.submit(deadline_s=20.0)
    first = driver.last(effects.StartRun)
    driver.handle(events.AttemptStarted(first.attempt_id, 5))
    driver.handle(events.AttemptFirstToken(first.attempt_id))
    fall_silent(driver, first.worker_id)
    second = driver.last(effects.StartRun)
    driver.handle(events.WorkerAttached(first.worker_id))
    driver.forget_effects()
    driver.let_pass(21)
    assert driver.task(task_id).state is TaskState.EXPIRED
    assert {effect.attempt_id for effect in driver.all_of(effects.CancelRun)} == {first.attempt_id, second.attempt_id}


def test_a_task_of_which_an_attempt_is_back_goes_on_there_when_the_other_is_lost() -> None:
    driver, _ = two_workers()
    task_id, first, second = back_beside_another(driver)
    crash(driver, second.worker_id)
    assert driver.task(task_id).state is TaskState.RUNNING
    assert driver.task(task_id).attempt is driver.state.attempts[first.attempt_id]


def test_a_failure_of_the_other_attempt_does_not_fail_a_task_of_which_one_is_back() -> None:
    driver, _ = two_workers()
    task_id, first, second = back_beside_another(driver)
    driver.handle(events.AttemptEnded(second.attempt_id, TaskError(Reason.ENGINE_FAILED, "it broke")))
    assert not driver.task(task_id).is_finished
    driver.finish_attempt(first.attempt_id)
    assert driver.task(task_id).state is TaskState.COMPLETED


def test_a_task_in_quarantine_has_its_other_attempt_cancelled() -> None:
    driver, _ = two_workers()
    task_id, first = start(driver, output=False)
    driver.task(task_id).suspicion.is_hot, driver.task(task_id).suspicion.ended = True, 1
    driver.state.suspects.add(task_id)
    fall_silent(driver, first.worker_id)
    second = driver.last(effects.StartRun)
    crash(driver, first.worker_id)
    assert driver.task(task_id).state is TaskState.FAILED
    assert {effect.attempt_id for effect in driver.all_of(effects.CancelRun)} == {second.attempt_id}


def test_a_task_of_an_app_at_its_limit_goes_on_elsewhere_when_its_worker_is_out_of_reach() -> None:
    driver, _ = two_workers()
    driver.handle(events.AppCreated(App("shop", "hash", max_concurrent_tasks=1)))
    task_id = driver.submit(app="shop")
    first = driver.last(effects.StartRun)
    driver.handle(events.AttemptStarted(first.attempt_id, 5))
    driver.handle(events.AttemptFirstToken(first.attempt_id))
    fall_silent(driver, first.worker_id)
    assert driver.task(task_id).attempts == 2, "it waits for the place that it holds itself"


def test_of_an_app_a_task_with_two_attempts_is_one_task_whichever_of_them_goes_on() -> None:
    driver, _ = two_workers()
    driver.handle(events.AppCreated(App("shop", "hash", max_concurrent_tasks=2)))
    driver.submit(app="shop")
    first = driver.last(effects.StartRun)
    driver.handle(events.AttemptStarted(first.attempt_id, 5))
    driver.handle(events.AttemptFirstToken(first.attempt_id))
    fall_silent(driver, first.worker_id)
    driver.handle(events.WorkerAttached(first.worker_id))
    running = driver.state.apps.usage("shop")
    assert running.running == 1
    driver.handle(events.AttemptDecided(first.attempt_id))
    assert running.running == 1
    driver.handle(events.AttemptUnknown(driver.last(effects.StartRun).attempt_id))
    assert running.running == 1
    driver.finish_attempt(first.attempt_id)
    assert running.running == 0


def test_a_queued_task_that_becomes_a_suspect_waits_as_one() -> None:
    driver, _ = two_workers(slots=2)
    tasks = [driver.submit() for _ in range(4)]
    victim = driver.last(effects.StartRun).worker_id
    aboard = [run.request.task_id for run in driver.all_of(effects.StartRun) if run.worker_id == victim]
    assert len(aboard) == 2
    fall_silent(driver, victim)
    assert all(driver.task(task_id).state is TaskState.QUEUED for task_id in aboard)
    driver.forget_effects()
    have_met_it_once(driver, aboard)
    crash(driver, victim)
    assert driver.state.suspects == set(aboard)
    for run in [attempt for attempt in driver.state.attempts.values() if attempt.task_id in tasks]:
        driver.finish_attempt(run.attempt_id)
    running = [driver.task(task_id).attempt for task_id in aboard if driver.task(task_id).attempt]
    by_worker = [attempt.worker_id for attempt in running]  # type: ignore[union-attr]
    assert len(by_worker) == len(set(by_worker)), "two suspects run on one worker"


def test_a_run_whose_end_the_store_does_not_have_is_not_released_when_the_link_comes_back() -> None:
    driver, _ = two_workers()
    task_id = driver.submit(durable=True)
    run = driver.last(effects.StartRun)
    driver.handle(events.AttemptFirstToken(run.attempt_id))
    driver.finish_attempt(run.attempt_id)
    assert driver.only(effects.PersistTerminal).task_id == task_id
    driver.handle(events.WorkerSilent(run.worker_id))
    driver.attach(run.worker_id, FoundRun(run.attempt_id, TaskRecord(run.request, 1), 1, 1, 3))
    assert not driver.all_of(effects.ReleaseRuns), "the store does not have the end yet"


OURS = Fingerprint("aa", ("RTX 3090",))
OTHERS = Fingerprint("bb", ("RTX 3090",))


def test_a_deterministic_task_keeps_its_promise_as_long_as_an_attempt_may_bring_output() -> None:
    driver, _ = two_workers()
    for worker in driver.state.fleet.workers.values():
        assert worker.engine is not None
        worker.engine = replace(worker.engine, fingerprint=OURS)
        loaded_as = driver.state.fleet.nodes[worker.node_id].loaded_as
        loaded_as.update(dict.fromkeys(loaded_as, OURS))
    task_id = driver.submit(deterministic=True)
    first = driver.last(effects.StartRun)
    promise = driver.task(task_id).promise
    assert promise is not None
    fall_silent(driver, first.worker_id)
    second = driver.last(effects.StartRun)
    assert second.number == 2
    fall_silent(driver, second.worker_id)
    assert driver.task(task_id).state is TaskState.QUEUED
    driver.handle(events.WorkerAttached(first.worker_id))
    crash(driver, first.worker_id)
    start_again(driver, driver.last(effects.StartWorker).node_id, fingerprint=OTHERS)
    driver.handle(events.WorkerAttached(second.worker_id))
    driver.handle(events.AttemptDecided(second.attempt_id))
    driver.handle(events.AttemptFirstToken(second.attempt_id))
    assert driver.task(task_id).attempt is driver.state.attempts[second.attempt_id], "its output is shown"
    kept = driver.task(task_id).promise
    assert kept is not None
    assert kept.fingerprint == OURS, "if it is lost now, it goes on with other bytes"


def start_again(driver: BrainDriver, host: str, fingerprint: Fingerprint) -> None:
    spec = driver.last(effects.StartWorker).spec
    driver.handle(events.WorkerStartAccepted(spec.worker_id, 9))
    driver.worker_ready(spec, host, fingerprint=fingerprint)


def test_a_worker_that_is_full_for_a_moment_fails_no_task() -> None:
    """Its slot is free here once it is cancelled there, and there once its engine has let go of it."""
    driver, _ = two_workers()
    task_id, first = start(driver, output=False)
    driver.handle(
        events.AttemptEnded(first.attempt_id, TaskError(Reason.NO_FREE_SLOT, "1 unfinished run, and takes 1"))
    )
    assert not driver.task(task_id).is_finished


def test_a_worker_that_shuts_down_fails_no_task() -> None:
    """It was told to end by its machine: what runs there is given up, and each start is refused with DRAINING."""
    driver, _ = two_workers()
    task_id, first = start(driver)
    cut = RunResult((ChoiceEnd(0, FinishReason.CANCELLED, 4),), tokens_out=4)
    (other,) = [w for w in driver.state.fleet.workers.values() if w.worker_id != first.worker_id]
    driver.worker_ended(other.spec, other.node_id)
    driver.handle(events.AttemptEnded(first.attempt_id, cut))
    for _ in range(3):
        refused = TaskError(Reason.DRAINING, "this worker shuts down")
        driver.handle(events.AttemptEnded(driver.last(effects.StartRun).attempt_id, refused))
    assert not driver.task(task_id).is_finished, driver.task(task_id).terminal


def have_met_it_once(driver: BrainDriver, tasks: Iterable[str]) -> None:
    """A worker has ended under them before, and their output has not gone past that point."""
    for task_id in tasks:
        driver.task(task_id).suspicion.under = UNDER_AT_MOST - 1


def full_house() -> BrainDriver:
    """A host with four cards: three have idle models, and one is free."""
    driver = BrainDriver()
    cards = [gpu(f"GPU-{number}", 6000, index=number) for number in range(4)]
    others = [f"other-{number}" for number in range(3)]
    staged = {f"file:/models/{name}.gguf": 4096 for name in ("coder", *others)}
    driver.add_node("garage", *cards, staged=staged)
    driver.add_model("coder", slots=4, size_mib=4096, context=2048)
    for name in others:
        driver.add_model(name, size_mib=4096, context=2048)
        driver.load_idle(name)
    driver.let_pass(120)
    return driver


def four_tasks(driver: BrainDriver, with_output: int = 0) -> WorkerSpec:
    """They run on the only worker of their model."""
    tasks = [driver.submit() for _ in range(4)]
    spec = driver.last(effects.StartWorker).spec
    driver.handle(events.WorkerStartAccepted(spec.worker_id, 1))
    driver.worker_ready(spec, "garage")
    assert all(driver.task(task_id).state is TaskState.RUNNING for task_id in tasks)
    for run in driver.all_of(effects.StartRun)[:with_output]:
        driver.handle(events.AttemptFirstToken(run.attempt_id))
    driver.forget_effects()
    return spec


def test_suspects_of_one_worker_make_room_for_one_worker() -> None:
    """Each has a lane of its own, and what makes room for the load of one lane is not counted for another."""
    driver = full_house()
    spec = four_tasks(driver)
    have_met_it_once(driver, driver.state.tasks)
    driver.worker_ended(spec, "garage", failure=(Reason.WORKER_LOST, "killed"))
    assert len(driver.state.suspects) == 4
    driver.let_pass(1)
    evicted = driver.all_of(effects.StopWorker)
    assert len(evicted) <= 1, f"{len(evicted)} workers of other models were evicted"


def test_tasks_with_and_without_output_make_room_for_one_worker() -> None:
    """Their worker was told to stop, and its card is taken by another program."""
    driver = full_house()
    spec = four_tasks(driver, with_output=2)
    driver.report("garage", Snapshot(full=False, devices=(gpu(spec.device_ids[0], 6000, others_mib=5900, index=3),)))
    driver.worker_ended(spec, "garage")
    driver.let_pass(1)
    evicted = driver.all_of(effects.StopWorker)
    assert len(evicted) <= 1, f"{len(evicted)} workers of other models were evicted"


def test_readers_are_told_the_place_of_the_attempt_that_goes_on() -> None:
    driver, _ = two_workers()
    _, first, second = back_beside_another(driver)
    driver.handle(events.AttemptDecided(first.attempt_id))
    told = driver.all_of(effects.AnnouncePlacement)
    assert [effect.placement.worker_id for effect in told] == [first.worker_id], f"they were told {second.worker_id}"


def drain_under(driver: BrainDriver, worker_id: str) -> None:
    host = driver.state.fleet.workers[worker_id].node_id
    driver.state.fleet.nodes[host].pools["p"] = Pool("p", host, (f"GPU-{host}",))
    driver.handle(events.PoolDrainAsked("p", 1.0, DrainPolicy.REQUEUE, AfterDrain.STAY))
    driver.let_pass(2)


def test_a_drain_starts_no_second_run_of_a_task_on_the_worker_that_is_back() -> None:
    driver, _ = two_workers(slots=2)
    task_id, first, second = back_beside_another(driver)
    drain_under(driver, second.worker_id)
    here = [a.number for a in driver.state.attempts.values() if a.worker_id == first.worker_id and a.task_id == task_id]
    assert here == [1]


def test_a_task_with_two_runs_on_one_worker_is_put_into_quarantine_once() -> None:
    driver, _ = two_workers(slots=2)
    task_id, first, second = back_beside_another(driver)
    drain_under(driver, second.worker_id)
    driver.task(task_id).suspicion.is_hot, driver.task(task_id).suspicion.ended = True, 1
    crash(driver, first.worker_id)
    assert driver.task(task_id).state is TaskState.FAILED


def test_a_drain_lets_a_task_go_on_where_it_is_back() -> None:
    driver, _ = two_workers(slots=1)
    task_id, _, second = back_beside_another(driver)
    drain_under(driver, second.worker_id)
    assert driver.task(task_id).state is TaskState.RUNNING


def test_a_cancelled_task_on_a_worker_out_of_reach_takes_no_place_of_its_app() -> None:
    driver, _ = two_workers()
    driver.handle(events.AppCreated(App("shop", "hash", max_concurrent_tasks=1)))
    task_id = driver.submit(app="shop")
    first = driver.last(effects.StartRun)
    driver.handle(events.AttemptStarted(first.attempt_id, 5))
    driver.handle(events.WorkerSilent(first.worker_id))
    driver.handle(events.TaskCancelled(task_id))
    driver.let_pass(5)
    assert driver.task(task_id).terminal_shown
    after = driver.submit(app="shop")
    driver.let_pass(5)
    assert driver.task(after).state is TaskState.RUNNING


def test_the_queue_time_is_that_of_the_attempt_that_brought_the_first_token() -> None:
    driver, _ = two_workers()
    _, first = start(driver, output=False)
    driver.let_pass(3)
    fall_silent(driver, first.worker_id)
    driver.handle(events.AttemptStarted(driver.last(effects.StartRun).attempt_id, 5))
    driver.handle(events.WorkerAttached(first.worker_id))
    driver.handle(events.AttemptDecided(first.attempt_id))
    driver.handle(events.AttemptFirstToken(first.attempt_id))
    driver.finish_attempt(first.attempt_id)
    terminal = driver.only(effects.AppendTerminal).terminal
    assert isinstance(terminal, TaskEnd)
    assert terminal.queue_ms == 0


def test_a_later_placement_names_no_loss_of_another_attempt() -> None:
    driver, _ = two_workers(slots=1)
    _, first, second = back_beside_another(driver)
    driver.handle(events.AttemptEnded(second.attempt_id, TaskError(Reason.ENGINE_FAILED, "it broke")))
    drain_under(driver, first.worker_id)  # moved on purpose, not lost
    told = [effect.placement.lost for effect in driver.all_of(effects.AnnouncePlacement)]
    assert len(told) == 2
    assert told[-1] is None, told
