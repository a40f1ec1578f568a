"""Whose turn it is on a device that is full: which workers leave for a model that tasks wait for, and when."""

import pytest

from llorch.assignment_mode import Mode
from llorch.worker_spec import WorkerSpec
from orchestratord.core import effects, events
from orchestratord.core.effects import StartWorker, StopWorker
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.fleet import Leaving
from orchestratord.core.facts.task import TaskState
from orchestratord.core.placement import turns
from orchestratord.core.placement.explain import explain, explain_task
from orchestratord.core.placement.sentences import sentence
from support.brain_driver import BrainDriver, gpu_of

LOAD_S = 5.0
"""Both models take so long."""
SWITCH_S = 2 * LOAD_S
RUN_S = 4.0


def one_card(*, slots: int = 1, mib: int = 9000, **weights: float) -> BrainDriver:
    """One device, with room for one of the models `busy` and `rival`; `busy` is loaded, and a run takes 4 s."""
    driver = BrainDriver()
    driver.add_node("garage", gpu_of("garage", total_mib=12_000))
    for app, weight in {"flood": 1.0, "calm": 1.0, **weights}.items():
        driver.handle(events.AppCreated(App(app, weight=weight)))
        driver.handle(events.ChangeKept())
    for name in ("busy", "rival"):
        driver.add_model(name, slots=slots, vram_claim_mib=mib)
        driver.stage(name, size_mib=mib)
    driver.submit("busy")
    driver.let_pass(LOAD_S)
    driver.worker_ready(there(driver, "busy"))
    driver.state.rates.loaded("rival", "garage", mib, 1000 * LOAD_S)
    driver.let_pass(RUN_S)
    driver.finish_attempt(driver.only(effects.StartRun).attempt_id)
    driver.state.rates.held("rival", 1000 * RUN_S)
    driver.let_pass(60)
    driver.forget_effects()
    return driver


def flood(driver: BrainDriver, tasks: int) -> None:
    for _ in range(tasks):
        driver.submit("busy", app="flood")


def runs(driver: BrainDriver) -> list[str]:
    """Attempts, in the order in which they began."""
    return sorted(driver.state.attempts, key=lambda attempt_id: driver.state.attempts[attempt_id].began_at)


def go_on(driver: BrainDriver, seconds: float, *, asks: str = "") -> None:
    """Runs take their time, one after the other; with `asks`, that app asks for another one whenever one has ended."""
    for _ in range(round(seconds / RUN_S)):
        driver.let_pass(RUN_S)
        for attempt_id in runs(driver):
            if asks:
                driver.submit("busy", app=asks)
            driver.finish_attempt(attempt_id)


def leaves(driver: BrainDriver) -> list[str]:
    """The models of workers that take nothing new."""
    return sorted(worker.spec.model for worker in driver.state.fleet.workers.values() if worker.leaving is not None)


def there(driver: BrainDriver, model: str) -> WorkerSpec:
    (worker,) = driver.state.fleet.workers_of_model(model)
    return worker.spec


def switch(driver: BrainDriver, leaver: str, comer: str) -> None:
    """The worker has ended, and the next one is loaded."""
    assert driver.last(StopWorker).worker_id == there(driver, leaver).worker_id
    driver.worker_ended(there(driver, leaver))
    assert driver.last(StartWorker).spec.model == comer
    driver.let_pass(LOAD_S)
    driver.worker_ready(there(driver, comer))


@pytest.mark.req("ORCH-1003", "ORCH-1015")
def test_a_flood_on_one_model_keeps_no_other_app_out() -> None:
    driver = one_card()
    flood(driver, 100)
    go_on(driver, 40)
    calm = driver.submit("rival", app="calm")
    driver.let_pass(1)
    assert leaves(driver) == [], "the calm app is owed nothing for the time before"
    go_on(driver, SWITCH_S)
    driver.let_pass(1)
    assert leaves(driver) == ["busy"], "since then the flood has had more than a switch"
    assert not driver.all_of(StopWorker), "what runs there runs to its end"
    go_on(driver, RUN_S)
    switch(driver, "busy", "rival")
    assert driver.task(calm).state is TaskState.RUNNING


def test_the_same_app_waits_for_what_it_sent_before() -> None:
    driver = one_card()
    flood(driver, 3)
    driver.submit("rival", app="flood")
    go_on(driver, 2 * RUN_S)
    assert leaves(driver) == []
    go_on(driver, RUN_S)
    assert driver.only(StopWorker).why is Leaving.EVICTED


def test_a_worker_whose_queue_is_shorter_than_a_switch_serves_it_first() -> None:
    driver = one_card()
    flood(driver, 5)
    driver.submit("rival", app="calm")
    go_on(driver, 2 * RUN_S)
    waiting = driver.state.queue.waiting("busy")
    assert waiting * RUN_S < SWITCH_S
    go_on(driver, RUN_S)
    assert leaves(driver) == []


@pytest.mark.parametrize(("weight", "has_to_wait"), [(1.0, False), (0.01, True)])
def test_the_app_has_to_be_behind_even_after_it_has_paid_for_the_switch(weight: float, *, has_to_wait: bool) -> None:
    driver = one_card(calm=weight)
    flood(driver, 100)
    driver.submit("rival", app="calm")
    go_on(driver, SWITCH_S + RUN_S)
    driver.let_pass(1)
    assert (leaves(driver) == []) is has_to_wait


@pytest.mark.req("ORCH-1013")
def test_it_is_explained_for_whom_a_task_waits() -> None:
    driver = one_card()
    flood(driver, 3)
    calm = driver.submit("rival", app="calm")
    (place,) = explain_task(driver.state, driver.task(calm)).candidates
    assert place.filter_detail == "RTX 3090: busy works on 1 task and is waited for by 2 tasks, of app 'flood' first"


@pytest.mark.req("ORCH-1003")
def test_a_task_of_a_higher_class_does_not_wait_for_a_queue_of_a_lower_one() -> None:
    driver = one_card()
    for _ in range(10):
        driver.submit("busy", priority="batch")
    driver.submit("rival", priority="interactive")
    driver.let_pass(1)
    assert leaves(driver) == ["busy"]


@pytest.mark.req("ORCH-1003")
@pytest.mark.parametrize(("priority", "after_s"), [("interactive", 80.0), ("batch", 80.0)])
def test_a_task_waits_no_longer_than_its_class_or_eight_switches(priority: str, after_s: float) -> None:
    """Of the same app as what works, which has always something that waits."""
    driver = one_card()
    assert after_s == max(driver.config.model_wait_s, turns.LONGEST_IN_SWITCHES * SWITCH_S)
    driver.submit("busy", app="flood")
    driver.submit("busy", app="flood")
    driver.submit("rival", app="flood", priority=priority)
    go_on(driver, after_s - RUN_S, asks="flood")
    assert leaves(driver) == []
    go_on(driver, 2 * RUN_S, asks="flood")
    assert driver.only(StopWorker).why is Leaving.EVICTED


def test_a_task_that_may_not_run_on_the_worker_holds_no_other_model_up() -> None:
    """A rule wants the model of an app on another node, where it is not there yet."""
    driver = one_card()
    driver.add_node("attic", gpu_of("attic", total_mib=12_000))
    driver.assign("busy", "attic/0", mode=Mode.PIN, app="calm")
    driver.submit("busy", app="calm")
    driver.let_pass(1)
    driver.submit("busy", app="flood")
    driver.submit("busy", app="flood")
    driver.assign("rival", "garage/0", mode=Mode.PIN)
    driver.submit("rival", app="flood")
    go_on(driver, max(driver.config.model_wait_s, turns.LONGEST_IN_SWITCHES * SWITCH_S) + 2 * RUN_S, asks="flood")
    assert driver.state.queue[next(driver.state.queue.heads("busy"))].app == "calm"
    assert driver.only(StopWorker).why is Leaving.EVICTED


def test_a_worker_for_which_no_task_waits_goes_when_the_waits_sum_up_to_several_switches() -> None:
    driver = one_card(slots=4)
    driver.submit("busy")
    for _ in range(8):
        driver.submit("rival")
    driver.let_pass(turns.WORTH_OF_SWITCHES * SWITCH_S / 8 - 1)
    assert leaves(driver) == []
    driver.let_pass(2)
    assert leaves(driver) == ["busy"]


def test_a_worker_that_was_just_loaded_serves_what_waited_for_it() -> None:
    """Two models that always have tasks: each turn is long enough for what waited at its beginning."""
    driver = one_card()
    for number in range(60):
        driver.submit(("busy", "rival")[number % 2])
        driver.let_pass(0.01)
    go_on(driver, RUN_S)
    driver.let_pass(turns.LONGEST_IN_SWITCHES * SWITCH_S)
    assert leaves(driver) == ["busy"]
    go_on(driver, RUN_S)
    switch(driver, "busy", "rival")
    (worker,) = driver.state.fleet.workers_of_model("rival")
    assert worker.grant == 29, "30 have waited, and the first of them runs"
    go_on(driver, 28 * RUN_S)
    assert leaves(driver) == []
    go_on(driver, 2 * RUN_S)
    assert driver.last(StopWorker).worker_id == worker.worker_id


@pytest.mark.req("ORCH-1015")
def test_room_that_is_made_for_a_model_is_not_taken_by_the_one_that_left() -> None:
    driver = one_card()
    flood(driver, 100)
    driver.submit("rival", app="calm")
    go_on(driver, SWITCH_S + RUN_S)
    driver.let_pass(1)
    driver.forget_effects()
    go_on(driver, RUN_S)
    driver.worker_ended(there(driver, "busy"))
    driver.let_pass(10)
    assert driver.only(StartWorker).spec.model == "rival"


def test_what_was_to_leave_stays_when_no_task_waits_for_the_room_any_more() -> None:
    driver = one_card()
    flood(driver, 100)
    calm = driver.submit("rival", app="calm")
    go_on(driver, 3 * RUN_S)
    driver.let_pass(1)
    assert leaves(driver) == ["busy"]
    assert not driver.all_of(StopWorker)
    driver.handle(events.TaskCancelled(calm))
    assert leaves(driver) == []
    assert driver.state.ledger.available(("garage", "GPU-1")) == 12_000 - 9000
    go_on(driver, RUN_S)
    assert len(runs(driver)) == 1
    assert not driver.all_of(StopWorker)


def test_a_load_does_not_wait_for_a_worker_when_another_place_is_free() -> None:
    driver = one_card()
    driver.submit("busy", priority="batch")
    driver.submit("busy", priority="batch")
    driver.submit("rival")
    assert leaves(driver) == ["busy"]
    driver.add_node("attic", gpu_of("attic", total_mib=12_000), staged={"file:/models/rival.gguf": 9000})
    driver.let_pass(1)
    assert driver.only(StartWorker).node_id == "attic"
    assert leaves(driver) == []


@pytest.mark.req("ORCH-1015")
def test_a_worker_that_a_rule_keeps_loaded_is_never_asked() -> None:
    driver = one_card()
    driver.add_node("attic", gpu_of("attic", total_mib=12_000), staged={})
    driver.add_model("other", vram_claim_mib=9000)
    for model in ("other", "rival"):
        driver.stage(model, "attic", size_mib=9000)
    driver.assign("busy", "garage/0", keep_loaded=True)
    for model in ("busy", "other"):
        for _ in range(10):
            driver.submit(model, priority="batch")
    driver.worker_ready(there(driver, "other"), node_id="attic")
    driver.submit("rival")
    driver.let_pass(1)
    assert leaves(driver) == ["other"]


def test_a_load_is_paid_by_the_app_for_which_it_began_and_by_what_it_took() -> None:
    driver = one_card()
    before = driver.state.queue.accounts.time_of("calm")
    driver.submit("rival", app="calm")
    driver.worker_ended(there(driver, "busy"))
    share = 9000 / driver.state.ledger.capacity(("garage", "GPU-1"))
    assert driver.state.queue.accounts.time_of("calm") - before == pytest.approx(LOAD_S * share)
    driver.let_pass(20)
    driver.worker_ready(there(driver, "rival"))
    run = driver.state.attempts[driver.only(effects.StartRun).attempt_id]
    paid = driver.state.queue.accounts.time_of("calm") - before - run.charged_s
    assert paid == pytest.approx(20 * share)


@pytest.mark.req("ORCH-1013")
def test_it_is_explained_behind_whom_a_task_waits_for_a_slot() -> None:
    driver = one_card()
    flood(driver, 4)
    calm = driver.submit("busy", app="calm")
    slot = "for a slot on GPU 0 (RTX 3090) of garage"
    told = sentence(explain_task(driver.state, driver.task(calm)))
    assert told == f"waited {slot}, about 8.0 s, behind 1 task, of app 'flood' first"
    told = sentence(explain(driver.state, "busy", "flood", 10, 10), is_dry_run=True)
    assert told == f"would wait {slot}, about 20 s, behind 4 tasks, of app 'flood' first"


def test_a_worker_stays_when_the_last_load_that_it_leaves_for_has_room_without_it() -> None:
    driver = BrainDriver()
    driver.add_node("garage", gpu_of("garage", total_mib=24_000))
    for name, mib in {"one": 9000, "two": 9000, "first": 12_000, "second": 12_000}.items():
        driver.add_model(name, slots=1, vram_claim_mib=mib)
        driver.stage(name, size_mib=mib)
    for name in ("one", "two"):
        for _ in range(2):
            driver.submit(name, priority="batch")
        driver.worker_ready(there(driver, name), resumes=False)
    for attempt_id in runs(driver):
        driver.handle(events.AttemptFirstToken(attempt_id))
    task_of_first = driver.submit("first")
    (leaver,) = leaves(driver)
    driver.submit("second")
    assert leaves(driver) == ["one", "two"]
    driver.handle(events.TaskCancelled(task_of_first))
    (other,) = {"one", "two"} - {leaver}
    driver.finish_attempt(next(it for it in runs(driver) if driver.state.attempts[it].place.model == other))
    driver.worker_ended(there(driver, other))
    assert driver.last(StartWorker).spec.model == "second"
    assert leaves(driver) == []
