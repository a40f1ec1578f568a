"""Tasks of a higher class do not wait for runs of a lower one: those end, and go on later."""

import pytest

from llorch.assignment_mode import Mode
from llorch.errors import Reason
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.effects import CancelRun, StartWorker, StopWorker
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.attempt import Attempt
from orchestratord.core.facts.fleet import Snapshot, WorkerReported
from orchestratord.core.facts.task import RunResult, TaskState
from orchestratord.core.placement import prediction
from orchestratord.core.placement.explain import explain_task
from orchestratord.core.state import BrainConfig
from support.brain_driver import BrainDriver, gpu_of

STARVES_AFTER_S = BrainConfig().max_starvation_s


def one_worker(slots: int = 2) -> BrainDriver:
    """One device with a worker of `coder`, which has room for no other model beside it."""
    driver = BrainDriver()
    driver.add_node("garage", gpu_of("garage", total_mib=12_000))
    for model in ("coder", "writer"):
        driver.add_model(model, slots=slots, vram_claim_mib=9000)
        driver.stage(model, size_mib=9000)
    driver.load_idle("coder")
    driver.forget_effects()
    return driver


def batch(driver: BrainDriver, tasks: int = 2) -> list[str]:
    """They begin one after the other."""
    found = []
    for _ in range(tasks):
        found.append(driver.submit(priority="batch"))
        driver.let_pass(1)
    return found


def run_of(driver: BrainDriver, task_id: str) -> Attempt:
    attempt = driver.task(task_id).attempt
    assert attempt is not None
    return attempt


def cancelled(driver: BrainDriver) -> list[str]:
    """Tasks whose runs were told to end since this was asked last."""
    told = [driver.state.attempts[it.attempt_id].task_id for it in driver.all_of(CancelRun)]
    driver.effects = [it for it in driver.effects if not isinstance(it, CancelRun)]
    return told


def end_what_gives_way(driver: BrainDriver) -> None:
    for attempt in [it for it in driver.state.attempts.values() if it.gives_way]:
        driver.handle(events.AttemptEnded(attempt.attempt_id, RunResult((), tokens_in=5)))


def states(driver: BrainDriver, *task_ids: str) -> list[TaskState]:
    return [driver.task(task_id).state for task_id in task_ids]


@pytest.mark.req("ORCH-1024")
def test_the_run_that_began_last_gives_its_slot_and_goes_on_later() -> None:
    driver = one_worker()
    first, second = batch(driver)
    for task_id in (first, second):
        driver.handle(events.AttemptFirstToken(run_of(driver, task_id).attempt_id))
    urgent = driver.submit()
    assert cancelled(driver) == [second]
    assert states(driver, first, second, urgent) == [TaskState.RUNNING, TaskState.QUEUED, TaskState.QUEUED]
    end_what_gives_way(driver)
    assert states(driver, second, urgent) == [TaskState.QUEUED, TaskState.RUNNING]
    driver.finish_attempt(run_of(driver, urgent).attempt_id)
    assert driver.task(second).state is TaskState.RUNNING
    assert run_of(driver, second).number == 2


@pytest.mark.req("ORCH-1024")
def test_so_many_give_way_as_tasks_wait_and_no_more() -> None:
    driver = one_worker(slots=8)
    batch(driver, 8)
    for _ in range(3):
        driver.submit()
    assert len(cancelled(driver)) == 3
    driver.let_pass(1)
    assert cancelled(driver) == [], "their slots are still to come"
    end_what_gives_way(driver)
    driver.let_pass(1)
    assert cancelled(driver) == []


def test_the_start_of_a_task_is_predicted_with_the_slots_that_it_is_given() -> None:
    driver = one_worker()
    driver.state.rates.held("coder", 60_000.0)
    batch(driver)
    urgent = driver.task(driver.submit())
    assert urgent.predicted_start_ms == 0
    waiting = driver.submit(priority="batch")
    assert (driver.task(waiting).predicted_start_ms or 0) > 10_000


@pytest.mark.parametrize("limit", ["class", "app", "held"])
def test_no_run_gives_way_to_a_task_that_gets_nothing_by_it(limit: str) -> None:
    driver = one_worker()
    if limit == "class":
        batch(driver, 3)
    else:
        driver.handle(events.AppCreated(App("small", max_concurrent_tasks=1)))
        driver.handle(events.ChangeKept())
        if limit == "held":
            driver.submit(app="small")
            batch(driver, 1)
        else:
            batch(driver, 2)
            driver.submit(app="small")
            assert len(cancelled(driver)) == 1
        driver.submit(app="small")
    driver.let_pass(1)
    assert cancelled(driver) == []


def test_no_run_gives_way_where_the_task_may_not_run() -> None:
    driver = one_worker()
    driver.add_node("attic", gpu_of("attic", total_mib=12_000))
    driver.handle(events.AppCreated(App("picky")))
    driver.handle(events.ChangeKept())
    driver.assign("coder", "attic/0", mode=Mode.PIN, app="picky")
    batch(driver)
    driver.submit(app="picky")
    driver.let_pass(1)
    assert cancelled(driver) == []


@pytest.mark.parametrize("why", ["its engine can't go on", "it was cancelled", "it is a suspect"])
def test_a_run_that_could_not_go_on_keeps_its_slot(why: str) -> None:
    driver = one_worker(slots=1)
    (kept,) = batch(driver, 1)
    driver.handle(events.AttemptFirstToken(run_of(driver, kept).attempt_id))
    if why == "its engine can't go on":
        run_of(driver, kept).resumes = False
    elif why == "it was cancelled":
        driver.handle(events.TaskCancelled(kept))
    else:
        driver.task(kept).suspicion.is_hot = True
    cancelled(driver)
    driver.submit()
    assert cancelled(driver) == []


@pytest.mark.req("ORCH-1024")
def test_a_task_that_gave_way_for_as_long_as_its_class_may_wait_keeps_its_next_slot() -> None:
    driver = one_worker(slots=1)
    (patient,) = batch(driver, 1)
    for _ in range(6):
        urgent = driver.submit()
        end_what_gives_way(driver)
        driver.let_pass(STARVES_AFTER_S / 6 + 1)
        driver.finish_attempt(run_of(driver, urgent).attempt_id)
        assert driver.task(patient).state is TaskState.RUNNING
    assert run_of(driver, patient).has_grant
    driver.forget_effects()
    driver.submit()
    driver.let_pass(1)
    assert cancelled(driver) == []


def test_only_one_run_of_a_class_and_model_keeps_its_slot_at_a_time() -> None:
    driver = one_worker(slots=2)
    patient = batch(driver, 2)
    urgent = [driver.submit(), driver.submit()]
    end_what_gives_way(driver)
    driver.let_pass(STARVES_AFTER_S / 2)
    for task_id in urgent:
        driver.finish_attempt(run_of(driver, task_id).attempt_id)
    urgent = [driver.submit(), driver.submit()]
    end_what_gives_way(driver)
    driver.let_pass(STARVES_AFTER_S / 2 + 1)
    for task_id in urgent:
        driver.finish_attempt(run_of(driver, task_id).attempt_id)
    assert sorted(run_of(driver, task_id).has_grant for task_id in patient) == [False, True]


@pytest.mark.req("ORCH-1024")
def test_a_class_that_was_passed_over_for_too_long_keeps_the_slot_that_it_gets() -> None:
    driver = one_worker(slots=1)
    running = driver.submit()
    waits = driver.submit(priority="batch")
    next_one = driver.submit()
    driver.let_pass(STARVES_AFTER_S + 1)
    driver.finish_attempt(run_of(driver, running).attempt_id)
    assert states(driver, waits, next_one) == [TaskState.RUNNING, TaskState.QUEUED]
    driver.let_pass(1)
    assert cancelled(driver) == []


@pytest.mark.req("ORCH-1024", "ORCH-1015")
def test_the_memory_of_a_worker_is_given_to_another_model_of_a_higher_class() -> None:
    driver = one_worker()
    tasks = batch(driver, 3)
    urgent = driver.submit("writer")
    assert sorted(cancelled(driver)) == sorted(tasks[:2])
    end_what_gives_way(driver)
    (worker,) = driver.state.fleet.workers_of_model("coder")
    assert driver.only(StopWorker).worker_id == worker.worker_id
    driver.worker_ended(worker.spec)
    assert driver.only(StartWorker).spec.model == "writer"
    driver.worker_ready(driver.only(StartWorker).spec)
    assert driver.task(urgent).state is TaskState.RUNNING
    driver.finish_attempt(run_of(driver, urgent).attempt_id)
    driver.let_pass(1)
    assert driver.last(StopWorker).worker_id != worker.worker_id, "what gave way gets the place back"


def test_runs_of_a_lower_class_go_on_beside_one_that_keeps_their_worker() -> None:
    driver = one_worker()
    own = driver.submit()
    (slow,) = batch(driver, 1)
    driver.submit(priority="batch")
    driver.submit("writer")
    (worker,) = driver.state.fleet.workers_of_model("coder")
    assert worker.leaving is not None
    assert cancelled(driver) == []
    driver.finish_attempt(run_of(driver, own).attempt_id)
    driver.let_pass(1)
    assert cancelled(driver) == [slow]


def test_a_worker_with_a_run_that_has_a_grant_keeps_its_memory() -> None:
    driver = one_worker(slots=1)
    running = driver.submit()
    waits = driver.submit(priority="batch")
    driver.submit(priority="batch")
    driver.let_pass(STARVES_AFTER_S + 1)
    driver.finish_attempt(run_of(driver, running).attempt_id)
    assert run_of(driver, waits).has_grant
    driver.submit("writer")
    driver.let_pass(1)
    assert cancelled(driver) == []
    assert all(worker.leaving is None for worker in driver.state.fleet.workers.values())


def test_a_run_that_ends_its_worker_while_it_gives_way_is_as_suspect_as_others() -> None:
    driver = one_worker(slots=1)
    (fatal,) = batch(driver, 1)
    driver.submit()
    assert cancelled(driver) == [fatal]
    (worker,) = driver.state.fleet.workers_of_model("coder")
    crashed = WorkerReported(worker.spec, WorkerState.FAILED, failure=(Reason.ENGINE_FAILED, "killed by signal 6"))
    driver.report(snapshot=Snapshot(full=False, workers=(crashed,)))
    suspicion = driver.task(fatal).suspicion
    assert (suspicion.under, suspicion.ended) == (1, 1)


def test_who_gives_way_is_told_and_counted() -> None:
    driver = one_worker(slots=1)
    (patient,) = batch(driver, 1)
    driver.submit()
    told = [it.text for it in driver.all_of(effects.Narrate) if it.task_id == patient]
    assert told[-1] == "gives way to a task of class 'interactive'; goes on from here when it has a slot"
    assert driver.only(effects.RunGaveWay) == effects.RunGaveWay("coder", "batch")


def test_a_run_that_is_about_to_end_counts_as_a_free_slot() -> None:
    driver = one_worker(slots=1)
    batch(driver, 1)
    driver.submit()
    (worker,) = driver.state.fleet.workers_of_model("coder")
    free = prediction.first_free(driver.state, worker, "batch")
    assert free == prediction.AT_ONCE


@pytest.mark.req("ORCH-1024")
def test_a_worker_that_serves_a_higher_class_does_not_leave_for_a_lower_one_before_that_is_overdue() -> None:
    driver = one_worker()
    running = driver.submit()
    for _ in range(50):
        driver.submit("writer", priority="batch")
    driver.let_pass(STARVES_AFTER_S - 5)
    assert leaving(driver) == []
    next_one = driver.submit()
    assert driver.task(next_one).state is TaskState.RUNNING
    driver.let_pass(10)
    assert leaving(driver) == ["coder"]
    assert cancelled(driver) == []
    assert driver.task(running).state is TaskState.RUNNING


def loading(driver: BrainDriver, *, asked: bool = False, priority: str = "batch") -> str:
    """The worker of `writer`, which is being loaded in place of `coder`."""
    if asked:
        driver.handle(events.ModelLoadAsked("writer", "asked"))
    else:
        driver.submit("writer", priority=priority)
    driver.let_pass(BrainConfig().min_residency_s)
    (coder,) = driver.state.fleet.workers_of_model("coder")
    driver.worker_ended(coder.spec)
    assert driver.only(StartWorker).spec.model == "writer"
    driver.forget_effects()
    return next(worker.worker_id for worker in driver.state.fleet.workers_of_model("writer"))


@pytest.mark.req("ORCH-1024")
def test_a_load_for_a_lower_class_is_given_up_for_a_higher_one() -> None:
    driver = one_worker()
    starting = loading(driver)
    driver.let_pass(3)
    accounts = driver.state.queue.accounts
    before = accounts.time_of("")
    driver.submit("coder")
    assert driver.only(StopWorker).worker_id == starting
    (writer,) = driver.state.fleet.workers_of_model("writer")
    driver.worker_ended(writer.spec)
    assert driver.only(StartWorker).spec.model == "coder"
    assert accounts.time_of("") < before + 1, "what did not come to its end is not paid for as if it had"


@pytest.mark.parametrize("why", ["same class", "asked for", "overdue"])
def test_other_loads_are_carried_out(why: str) -> None:
    driver = one_worker()
    loading(driver, asked=why == "asked for", priority="interactive" if why == "same class" else "batch")
    if why == "overdue":
        driver.let_pass(STARVES_AFTER_S)
    driver.submit("coder")
    driver.let_pass(1)
    assert not driver.all_of(StopWorker)


def leaving(driver: BrainDriver) -> list[str]:
    return [worker.spec.model for worker in driver.state.fleet.workers.values() if worker.leaving is not None]


def test_one_task_is_given_one_slot_however_long_batch_work_has_run() -> None:
    driver = one_worker(slots=8)
    for _ in range(28):
        driver.submit(priority="batch")
    driver.let_pass(STARVES_AFTER_S + 1)
    driver.forget_effects()
    urgent = driver.submit()
    assert len(cancelled(driver)) == 1
    end_what_gives_way(driver)
    assert driver.task(urgent).state is TaskState.RUNNING, "the slot goes to it and not to the class that gave it"
    assert cancelled(driver) == []


def test_tasks_that_may_not_run_there_take_no_slots_from_those_that_may() -> None:
    driver = one_worker(slots=8)
    driver.add_node("attic", gpu_of("attic", total_mib=12_000))
    driver.handle(events.AppCreated(App("picky")))
    driver.handle(events.ChangeKept())
    driver.assign("coder", "attic/0", mode=Mode.PIN, app="picky")
    batch(driver, 8)
    for _ in range(20):
        driver.submit(app="picky")
    driver.submit()
    driver.let_pass(1)
    assert len(cancelled(driver)) == 1


def test_an_app_at_its_limit_hides_no_other() -> None:
    driver = one_worker(slots=8)
    driver.handle(events.AppCreated(App("small", max_concurrent_tasks=2)))
    driver.handle(events.ChangeKept())
    batch(driver, 8)
    for _ in range(30):
        driver.submit("writer", app="small")
    cancelled(driver)
    driver.submit(app="small")
    for _ in range(3):
        driver.submit(app="other")
    driver.let_pass(1)
    going = [it for it in driver.state.attempts.values() if it.gives_way is not None]
    assert len(going) >= 3


def test_batch_work_that_only_waits_for_itself_has_no_grants() -> None:
    driver = one_worker(slots=1)
    for _ in range(3):
        driver.submit(priority="batch")
    for _ in range(2):
        (attempt_id,) = driver.state.attempts
        assert not driver.state.attempts[attempt_id].has_grant
        driver.let_pass(2 * STARVES_AFTER_S)
        driver.finish_attempt(attempt_id)
    driver.forget_effects()
    driver.submit("writer")
    assert len(cancelled(driver)) == 1


def test_grants_never_take_all_slots() -> None:
    driver = one_worker(slots=2)
    for _ in range(4):
        driver.submit(priority="batch")
    for _ in range(8):
        urgent = [driver.submit(), driver.submit()]
        end_what_gives_way(driver)
        driver.let_pass(STARVES_AFTER_S / 2)
        for task_id in urgent:
            if (attempt := driver.task(task_id).attempt) is not None:
                driver.finish_attempt(attempt.attempt_id)
        assert sum(it.has_grant for it in driver.state.attempts.values()) <= 1


def test_batch_tasks_of_a_model_that_wait_for_long_hide_no_interactive_ones_of_it() -> None:
    driver = one_worker(slots=1)
    batch(driver, 3)
    driver.submit("writer", priority="batch")
    driver.let_pass(STARVES_AFTER_S / 2)
    driver.finish_attempt(next(iter(driver.state.attempts)))
    driver.let_pass(STARVES_AFTER_S / 2 + 2)
    driver.forget_effects()
    driver.submit("writer")
    assert len(cancelled(driver)) == 1


def test_runs_of_a_worker_that_is_silent_are_not_given_up() -> None:
    driver = one_worker(slots=1)
    batch(driver, 1)
    (worker,) = driver.state.fleet.workers_of_model("coder")
    driver.handle(events.WorkerSilent(worker.worker_id))
    driver.submit("writer")
    driver.submit()
    driver.let_pass(1)
    assert cancelled(driver) == []


def test_what_gives_way_teaches_nothing_of_how_long_runs_take() -> None:
    driver = one_worker(slots=1)
    driver.state.rates.held("coder", 40_000.0)
    batch(driver, 1)
    driver.submit()
    end_what_gives_way(driver)
    holding = driver.state.rates.holding_ms("coder")
    assert holding is not None
    assert holding.mean == 40_000.0


def test_a_task_with_output_is_not_held_to_be_late_for_what_a_whole_answer_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prediction, "least_service_ms", lambda *_: 9000.0)
    driver = one_worker(slots=1)
    task_id = driver.submit(priority="batch", deadline_s=15.0)
    driver.let_pass(4)
    driver.handle(events.AttemptFirstToken(run_of(driver, task_id).attempt_id))
    driver.submit()
    end_what_gives_way(driver)
    driver.let_pass(8)
    assert driver.task(task_id).state is TaskState.QUEUED


def loads_take(driver: BrainDriver, **seconds: float) -> None:
    for model, took_s in seconds.items():
        for _ in range(50):
            driver.state.rates.loaded(model, "garage", 9000, 1000 * took_s)


@pytest.mark.req("ORCH-1024", "ORCH-1015")
def test_a_pause_of_interactive_work_is_no_reason_for_batch_work_to_load_its_model() -> None:
    driver = one_worker()
    loads_take(driver, coder=4.0, writer=6.0)
    question = driver.submit()
    driver.submit("writer", priority="batch")
    driver.finish_attempt(run_of(driver, question).attempt_id)
    driver.let_pass(8)
    assert not driver.all_of(StopWorker), "the switch, both loads, takes 10 s"
    waits = next(iter(driver.state.queue.waiting_for("writer")))
    (place,) = explain_task(driver.state, driver.task(waits)).candidates
    assert place.filter_detail == "RTX 3090: coder has just been used by tasks of class 'interactive'"
    driver.let_pass(4)
    assert driver.only(StopWorker)


@pytest.mark.req("ORCH-1024")
def test_batch_work_that_has_had_no_slot_for_too_long_is_loaded_in_any_pause() -> None:
    driver = one_worker(slots=1)
    loads_take(driver, coder=40.0)
    question = driver.submit()
    driver.submit("writer", priority="batch")
    for _ in range(8):
        driver.let_pass(7)
        driver.finish_attempt(run_of(driver, question).attempt_id)
        driver.let_pass(0.25)
        assert not driver.all_of(StopWorker)
        question = driver.submit()
    driver.finish_attempt(run_of(driver, question).attempt_id)
    driver.let_pass(STARVES_AFTER_S - 8 * 7.25 + 1)
    assert driver.only(StopWorker)


def test_a_class_whose_only_run_has_ended_lacks_slots_again() -> None:
    driver = one_worker(slots=1)
    (first,) = batch(driver, 1)
    driver.finish_attempt(run_of(driver, first).attempt_id)
    driver.submit()
    waits = driver.submit(priority="batch")
    driver.let_pass(STARVES_AFTER_S + 1)
    assert driver.state.queue.lacks_slots(waits)
