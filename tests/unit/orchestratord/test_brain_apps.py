"""Apps: their keys, their names for models, their priority, weight and quotas, as the brain applies them."""

import pytest

from llorch.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Reason, ResourceExhausted
from orchestratord.core import effects, events
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.fleet import Snapshot
from orchestratord.core.facts.model import Origin
from orchestratord.core.facts.records import RecordChange
from orchestratord.core.facts.task import TaskState
from orchestratord.core.state import BrainConfig
from support.brain_driver import BrainDriver, gpu

KEY = "ab" * 32


def driver_with_worker(slots: int = 1, **config: object) -> BrainDriver:
    """A worker of "coder" that has nothing to do."""
    driver = BrainDriver(BrainConfig(**config))  # type: ignore[arg-type]  # tests name fields
    driver.add_model("coder", slots=slots, context=2048)
    driver.add_node()
    first = driver.submit("coder")
    driver.load("coder")
    driver.finish_attempt(driver.only(effects.StartRun).attempt_id)
    assert driver.task(first).state is TaskState.COMPLETED
    driver.forget_effects()
    return driver


def running(driver: BrainDriver) -> list[str]:
    return [attempt.task_id for attempt in driver.state.attempts.values()]


def test_an_app_is_found_by_its_key_until_it_is_deleted() -> None:
    driver = driver_with_worker()
    driver.handle(events.AppCreated(App("aider", KEY, created_at_ms=7)))
    assert driver.state.apps.by_key_hash(KEY) == App("aider", KEY, created_at_ms=7)
    (kept,) = driver.only(effects.PersistChange).changes
    assert kept == RecordChange(None, App("aider", KEY, created_at_ms=7))
    driver.handle(events.AppDeleted("aider"))
    assert driver.state.apps.by_key_hash(KEY) is None
    with pytest.raises(NotFound) as refused:
        driver.handle(events.AppDeleted("aider"))
    assert refused.value.reason is Reason.APP_NOT_FOUND


def test_a_name_is_given_once() -> None:
    driver = driver_with_worker()
    driver.handle(events.AppCreated(App("aider", KEY)))
    with pytest.raises(AlreadyExists):
        driver.handle(events.AppCreated(App("aider", "cd" * 32)))
    assert driver.state.apps.by_key_hash("cd" * 32) is None


@pytest.mark.parametrize(
    ("app", "error"),
    [
        (App("x", priority="urgent"), InvalidArgument),
        (App("x", models={"gpt-4o": "nowhere"}), NotFound),
    ],
)
def test_an_app_that_makes_no_sense_is_refused(app: App, error: type[Exception]) -> None:
    driver = driver_with_worker()
    with pytest.raises(error):
        driver.handle(events.AppCreated(app))
    assert driver.state.apps.all() == []


def test_an_update_leaves_the_key_and_the_time_of_creation() -> None:
    driver = driver_with_worker()
    driver.handle(events.AppCreated(App("aider", KEY, created_at_ms=7)))
    driver.handle(events.AppUpdated(App("aider", weight=2.0)))
    assert driver.state.apps.get("aider") == App("aider", KEY, weight=2.0, created_at_ms=7)
    assert driver.state.queue.accounts.weights["aider"] == 2.0


def test_the_settings_file_wins_over_calls_and_leaves_the_key_to_them() -> None:
    driver = driver_with_worker()
    driver.handle(events.AppDefined(App("aider", priority="batch")))
    driver.handle(events.AppCreated(App("aider", KEY, priority="interactive", created_at_ms=7)))
    app = driver.state.apps.get("aider")
    assert (app.key_hash, app.priority, app.origin, app.created_at_ms) == (KEY, "batch", Origin.FILE, 7)
    with pytest.raises(FailedPrecondition, match="settings file"):
        driver.handle(events.AppUpdated(App("aider")))
    driver.handle(events.AppDefined(App("aider", weight=3.0)))
    assert driver.state.apps.by_key_hash(KEY) is not None, "the file said something else, the key is as it was"
    driver.handle(events.AppDeleted("aider"))
    assert driver.state.apps.get("aider").key_hash == ""
    with pytest.raises(FailedPrecondition, match="remove it there"):
        driver.handle(events.AppDeleted("aider"))


@pytest.mark.req("ORCH-1033")
def test_an_app_may_have_names_of_its_own_for_models() -> None:
    driver = driver_with_worker()
    driver.handle(events.AppDefined(App("open-webui", models={"gpt-4o": "coder"})))
    task_id = driver.submit("gpt-4o", app="open-webui")
    assert driver.task(task_id).request.model == "coder"
    assert driver.last(effects.OpenLog).request.model == "coder"
    with pytest.raises(NotFound):
        driver.submit("gpt-4o", app="another")


def test_a_task_that_says_nothing_has_the_priority_of_its_app() -> None:
    driver = driver_with_worker()
    driver.handle(events.AppDefined(App("titles", priority="batch")))
    for app, said, then in (("titles", "", "batch"), ("titles", "interactive", "interactive"), ("", "", "interactive")):
        assert driver.task(driver.submit(app=app, priority=said)).request.priority == then


@pytest.mark.req("ORCH-1025")
def test_an_app_runs_no_more_tasks_at_once_than_it_may_and_the_others_wait() -> None:
    driver = driver_with_worker(slots=4)
    driver.handle(events.AppDefined(App("aider", max_concurrent_tasks=2)))
    own = [driver.submit(app="aider") for _ in range(3)]
    other = driver.submit(app="another")
    assert running(driver) == [*own[:2], other], "a slot is free, but not for this app"
    driver.finish_attempt(driver.all_of(effects.StartRun)[0].attempt_id)
    assert running(driver) == [own[1], other, own[2]]


def test_an_app_below_its_limit_again_starts_what_waits_for_another_model() -> None:
    driver = driver_with_worker(slots=2)
    driver.add_model("writer", slots=2, context=2048)
    first = driver.submit("writer")
    driver.load("writer")
    driver.finish_attempt(driver.last(effects.StartRun).attempt_id)
    assert driver.task(first).is_finished
    driver.handle(events.AppDefined(App("aider", max_concurrent_tasks=1)))
    own = [driver.submit(model, app="aider") for model in ("coder", "writer")]
    assert running(driver) == own[:1]
    driver.finish_attempt(driver.last(effects.StartRun).attempt_id)
    assert running(driver) == own[1:]


def two_cards_of_one_model_each() -> BrainDriver:
    driver = BrainDriver()
    driver.add_node("garage", gpu("GPU-1", total_mib=10_000), gpu("GPU-2", total_mib=10_000, index=1))
    for name in ("coder", "writer", "painter"):
        driver.add_model(name, size_mib=4000, slots=2, vram_claim_mib=8000)
        driver.stage(name)
    driver.handle(events.AppDefined(App("aider", max_concurrent_tasks=1)))
    return driver


def models_loaded(driver: BrainDriver) -> list[str]:
    return [effect.spec.model for effect in driver.all_of(effects.StartWorker)]


@pytest.mark.req("ORCH-1025")
def test_no_model_is_loaded_and_none_leaves_for_tasks_that_may_not_start() -> None:
    driver = two_cards_of_one_model_each()
    driver.submit("coder", app="aider")
    driver.load("coder")
    driver.submit("writer", app="another")
    driver.load("writer")
    driver.finish_attempt(driver.last(effects.StartRun).attempt_id)
    held = driver.submit("painter", app="aider")
    driver.let_pass(600)
    assert models_loaded(driver) == ["coder", "writer"]
    assert not driver.all_of(effects.StopWorker)
    driver.finish_attempt(driver.all_of(effects.StartRun)[0].attempt_id)
    driver.let_pass(60)
    driver.worker_ended(next(it.spec for it in driver.state.fleet.workers.values() if it.leaving))
    driver.load("painter")
    assert running(driver) == [held]


@pytest.mark.req("ORCH-1025")
def test_for_an_app_that_may_run_one_task_one_model_is_loaded_at_a_time() -> None:
    driver = two_cards_of_one_model_each()
    first = driver.submit("coder", app="aider")
    second = driver.submit("writer", app="aider")
    driver.let_pass(3)
    assert models_loaded(driver) == ["coder"]
    spec = driver.last(effects.StartWorker).spec
    driver.report(snapshot=Snapshot(full=False, workers=(driver.ready_report(spec),)))
    driver.let_pass(3)
    assert models_loaded(driver) == ["coder"], "its task is about to start there"
    driver.attach(spec.worker_id)
    assert running(driver) == [first]
    driver.let_pass(3)
    assert models_loaded(driver) == ["coder"]
    driver.finish_attempt(driver.last(effects.StartRun).attempt_id)
    driver.load("writer")
    assert running(driver) == [second]


def test_a_task_that_is_cancelled_lets_the_next_of_its_app_have_its_model() -> None:
    driver = two_cards_of_one_model_each()
    first = driver.submit("coder", app="aider")
    driver.submit("writer", app="aider")
    driver.handle(events.TaskCancelled(first))
    driver.let_pass(1)
    assert models_loaded(driver) == ["coder", "writer"]


def test_a_load_that_waits_for_a_place_keeps_no_other_model_of_the_app_out() -> None:
    driver = BrainDriver()
    driver.add_node("garage", gpu("GPU-1", total_mib=10_000), gpu("GPU-2", total_mib=22_000, index=1))
    for name, mib in (("large", 20_000), ("kept", 20_000), ("small", 8000)):
        driver.add_model(name, size_mib=mib, slots=1, vram_claim_mib=mib)
        driver.stage(name, size_mib=mib)
    driver.handle(events.AppDefined(App("aider", max_concurrent_tasks=1)))
    driver.submit("kept", app="another")
    driver.load("kept")
    driver.handle(events.ModelLoadAsked("large", "worker-of-large"))
    driver.submit("large", app="aider")
    driver.submit("small", app="aider")
    assert models_loaded(driver) == ["kept", "small"]


@pytest.mark.req("ORCH-1025")
def test_no_replica_is_loaded_for_tasks_that_may_not_start() -> None:
    driver = two_cards_of_one_model_each()
    driver.assign("coder", "garage", replicas_max=2)
    driver.handle(events.AppDefined(App("aider", max_concurrent_tasks=2)))
    for _ in range(8):
        driver.submit("coder", app="aider")
    driver.load("coder")
    driver.let_pass(30)
    assert models_loaded(driver) == ["coder"]
    for _ in range(2):
        driver.submit("coder", app="another")
    assert models_loaded(driver) == ["coder", "coder"]


def test_a_higher_limit_holds_at_once() -> None:
    driver = driver_with_worker(slots=4)
    driver.handle(events.AppDefined(App("aider", max_concurrent_tasks=1)))
    own = [driver.submit(app="aider") for _ in range(2)]
    driver.handle(events.AppDefined(App("aider")))
    assert running(driver) == own


@pytest.mark.req("ORCH-1025")
def test_an_app_that_has_used_its_tokens_of_the_minute_is_told_when_to_come_back() -> None:
    driver = driver_with_worker()
    driver.handle(events.AppDefined(App("aider", max_tokens_per_minute=600)))
    driver.submit(app="aider", prompt_tokens=100, max_tokens=100)
    driver.finish_attempt(driver.last(effects.StartRun).attempt_id, tokens_out=895)
    with pytest.raises(ResourceExhausted) as refused:
        driver.submit(app="aider")
    assert refused.value.reason is Reason.QUOTA_EXCEEDED
    assert refused.value.retry_after_ms == 30_000, "300 tokens above what ten a second allow"
    driver.submit(app="another")
    driver.let_pass(30.1)
    driver.submit(app="aider")


@pytest.mark.req("ORCH-1003")
def test_a_flood_of_one_app_does_not_keep_another_waiting() -> None:
    driver = driver_with_worker()
    for _ in range(50):
        driver.submit(app="flood")
    calm = driver.submit(app="calm")
    driver.let_pass(1)
    driver.finish_attempt(driver.last(effects.StartRun).attempt_id)
    assert running(driver) == [calm]


def test_what_a_deleted_app_has_sent_goes_on() -> None:
    driver = driver_with_worker()
    driver.handle(events.AppCreated(App("aider", KEY, max_concurrent_tasks=1)))
    own = [driver.submit(app="aider") for _ in range(2)]
    driver.handle(events.AppDeleted("aider"))
    for _ in own:
        driver.finish_attempt(driver.last(effects.StartRun).attempt_id)
    assert [driver.task(task_id).state for task_id in own] == [TaskState.COMPLETED] * 2
