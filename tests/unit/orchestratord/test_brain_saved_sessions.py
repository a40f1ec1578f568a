"""Sessions are saved when their worker is told to end, and forgotten on disks when they end."""

import pytest

from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.effects import ForgetAllSavedSessions, ForgetSavedSession, SessionToSave, StopWorker
from orchestratord.core.facts import sessions
from orchestratord.core.facts.drains import AfterDrain, DrainPolicy
from orchestratord.core.facts.fleet import Leaving, Pool, SavedSessions, Snapshot, WorkerReported
from orchestratord.core.facts.sessions import Session
from orchestratord.core.state import BrainConfig
from support.brain_driver import BrainDriver, gpu, gpu_of

TTL_S = 60.0
EMPTY = SavedSessions(budget_mib=4096)
SOME = SavedSessions(3, 240, 4096)


@pytest.fixture
def driver() -> BrainDriver:
    """Two models, each with a worker on a card of its own; both cards are in pools of their own."""
    driver = BrainDriver(BrainConfig(session_ttl_s=TTL_S))
    devices = gpu("GPU-1"), gpu("GPU-2", index=1)
    driver.add_node("garage", *devices, pools=(Pool("fast", "garage", ("GPU-1",)), Pool("slow", "garage", ("GPU-2",))))
    for model, device in (("coder", "GPU-1"), ("poet", "GPU-2")):
        driver.add_model(model, slots=2)
        driver.assign(model, f"garage/{device}")
        driver.load_idle(model)
    return driver


def spec_of(driver: BrainDriver, model: str = "coder") -> WorkerSpec:
    (worker,) = driver.state.fleet.workers_of_model(model)
    return worker.spec


def turn(driver: BrainDriver, session_id: str, model: str = "coder", app: str = "") -> None:
    driver.submit(model, session_id=session_id, app=app)
    driver.finish_attempt(driver.last(effects.StartRun).attempt_id)


def told_to_end(driver: BrainDriver, model: str = "coder") -> StopWorker:
    driver.forget_effects()
    driver.handle(events.ModelUnloadAsked(model, even_if_busy=True))
    return driver.only(StopWorker)


def drain(driver: BrainDriver, after: AfterDrain) -> None:
    driver.forget_effects()
    driver.handle(events.PoolDrainAsked("fast", 30, DrainPolicy.REQUEUE, after))


def saves(driver: BrainDriver, node_id: str, saved: SavedSessions = SOME) -> None:
    driver.report(node_id, Snapshot(full=False, saved_sessions=saved))


def test_a_worker_that_is_unloaded_saves_its_sessions_the_last_used_first(driver: BrainDriver) -> None:
    turn(driver, "first", app="a")
    driver.let_pass(10)
    turn(driver, "second", app="b")
    turn(driver, "elsewhere", "poet")
    driver.let_pass(5)
    turn(driver, "third")
    driver.let_pass(5)
    assert told_to_end(driver).save == (
        SessionToSave("", "third", TTL_S - 5),
        SessionToSave("b", "second", TTL_S - 10),
        SessionToSave("a", "first", TTL_S - 20),
    )
    assert [it.session_id for it in told_to_end(driver, "poet").save] == ["elsewhere"]


def test_a_session_that_went_on_elsewhere_is_saved_there_alone(driver: BrainDriver) -> None:
    turn(driver, "chat")
    turn(driver, "chat", "poet")
    assert told_to_end(driver).save == ()
    assert [it.session_id for it in told_to_end(driver, "poet").save] == ["chat"]


def test_a_session_with_a_task_that_waits_or_runs_has_its_whole_time(driver: BrainDriver) -> None:
    for session_id in ("running", "waiting", "idle"):
        turn(driver, session_id)
    driver.let_pass(20)
    driver.submit(session_id="running")
    driver.submit()  # takes the other slot
    driver.submit(session_id="waiting")
    driver.let_pass(30)
    assert {(it.session_id, it.keep_s) for it in told_to_end(driver).save[:2]} == {
        ("running", TTL_S),
        ("waiting", TTL_S),
    }
    assert driver.only(StopWorker).save[2:] == (SessionToSave("", "idle", TTL_S - 50),)


def test_a_session_whose_time_is_over_is_not_saved(driver: BrainDriver) -> None:
    turn(driver, "old")
    driver.let_pass(20)
    turn(driver, "new")
    driver.now += TTL_S - 20
    assert driver.state.sessions.find("", "old"), "no tick came since"
    assert [it.session_id for it in told_to_end(driver).save] == ["new"]


def test_a_stop_that_got_lost_names_the_sessions_that_there_are_by_then(driver: BrainDriver) -> None:
    turn(driver, "stays")
    turn(driver, "ends")
    assert len(told_to_end(driver).save) == 2
    driver.handle(events.SessionDeleted("", "ends"))
    driver.forget_effects()
    driver.now += 2
    driver.report(snapshot=Snapshot(full=False, workers=(driver.ready_report(spec_of(driver)),)))
    again = driver.only(StopWorker)
    assert again == StopWorker("garage", spec_of(driver).worker_id, Leaving.ASKED, again.save)
    assert again.save == (SessionToSave("", "stays", TTL_S - 2),)


def test_a_stop_that_is_told_again_since_the_start_may_still_come_names_them_too(driver: BrainDriver) -> None:
    """A full report leaves the worker out, and does not know of the command that started it."""
    turn(driver, "chat")
    told_to_end(driver)
    driver.state.fleet.worker(spec_of(driver).worker_id).start_seq = 99
    driver.forget_effects()
    driver.report(snapshot=Snapshot(full=True, devices=tuple(driver.state.fleet.node("garage").devices.values())))
    stops = [stop for stop in driver.all_of(StopWorker) if stop.worker_id == spec_of(driver).worker_id]
    assert [[it.session_id for it in stop.save] for stop in stops] == [["chat"]]


def test_a_drained_worker_saves_and_one_that_is_purged_saves_nothing(driver: BrainDriver) -> None:
    for session_id, model in (("chat", "coder"), ("poem", "poet")):
        turn(driver, session_id, model)
    drain(driver, AfterDrain.PURGE)
    purged = driver.only(StopWorker)
    assert (purged.why, purged.save) == (Leaving.DRAINED, ())
    assert [it.session_id for it in told_to_end(driver, "poet").save] == ["poem"], "it is of another pool"


@pytest.mark.parametrize("after", [AfterDrain.STAY, AfterDrain.RELOAD])
def test_a_worker_of_a_pool_that_is_drained_saves(driver: BrainDriver, after: AfterDrain) -> None:
    turn(driver, "chat")
    drain(driver, after)
    assert [it.session_id for it in driver.only(StopWorker).save] == ["chat"]


@pytest.mark.parametrize("saved", [SOME, EMPTY, SavedSessions(1, 1, 0)])
def test_a_purge_forgets_all_that_its_node_has_and_nothing_elsewhere(driver: BrainDriver, saved: SavedSessions) -> None:
    """Also what the node may have saved and not told yet."""
    driver.add_node("attic", gpu_of("attic"), saved_sessions=SOME)
    saves(driver, "garage", saved)
    drain(driver, AfterDrain.PURGE)
    assert not driver.all_of(ForgetAllSavedSessions), "not before the pool is empty"
    driver.worker_ended(spec_of(driver))
    assert driver.all_of(ForgetAllSavedSessions) == [ForgetAllSavedSessions("garage")]


@pytest.mark.parametrize("after", list(AfterDrain))
def test_nothing_is_forgotten_by_other_drains_or_where_nothing_can_be(driver: BrainDriver, after: AfterDrain) -> None:
    if after is not AfterDrain.PURGE:
        saves(driver, "garage")
    drain(driver, after)
    driver.worker_ended(spec_of(driver))
    assert not driver.all_of(ForgetAllSavedSessions)
    assert not driver.all_of(ForgetSavedSession)


@pytest.fixture
def hosts(driver: BrainDriver) -> BrainDriver:
    """Of four nodes, two have something saved; a session of the app `ui` is on one of its workers."""
    for node_id, saved in (("attic", SOME), ("cellar", EMPTY), ("shed", None)):
        driver.add_node(node_id, gpu_of(node_id), saved_sessions=saved)
    saves(driver, "garage")
    turn(driver, "chat", app="ui")
    driver.forget_effects()
    return driver


def forgotten(driver: BrainDriver) -> list[ForgetSavedSession]:
    return sorted(driver.all_of(ForgetSavedSession), key=lambda it: (it.session_id, it.node_id))


BOTH = [ForgetSavedSession("attic", "ui", "chat"), ForgetSavedSession("garage", "ui", "chat")]


def test_a_deleted_session_is_forgotten_where_something_is_saved(hosts: BrainDriver) -> None:
    hosts.handle(events.SessionDeleted("ui", "chat"))
    assert forgotten(hosts) == BOTH
    assert not hosts.all_of(ForgetAllSavedSessions)


def test_so_is_one_whose_time_is_over(hosts: BrainDriver) -> None:
    hosts.let_pass(TTL_S - 1)
    assert forgotten(hosts) == []
    hosts.let_pass(2)
    assert forgotten(hosts) == BOTH


def test_so_is_one_too_many(hosts: BrainDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST_SESSIONS", 1)
    turn(hosts, "other", app="ui")
    assert forgotten(hosts) == BOTH


def test_a_session_that_only_leaves_its_worker_is_not_forgotten(hosts: BrainDriver) -> None:
    told_to_end(hosts)
    hosts.worker_ended(spec_of(hosts))
    assert forgotten(hosts) == []


def test_a_report_that_does_not_tell_keeps_what_was_told(driver: BrainDriver) -> None:
    node = driver.state.fleet.node("garage")
    assert node.saved_sessions == SavedSessions()
    saves(driver, "garage")
    driver.report()
    driver.report(snapshot=Snapshot(full=True, devices=tuple(node.devices.values())))
    assert node.saved_sessions == SOME
    saves(driver, "garage", EMPTY)
    assert node.saved_sessions == EMPTY


def test_a_pool_manager_of_an_earlier_release_that_takes_over_has_saved_nothing(driver: BrainDriver) -> None:
    saves(driver, "garage")
    driver.add_node(instance_id="older")
    assert driver.state.fleet.node("garage").saved_sessions == SavedSessions()


def test_what_is_purged_is_known_by_the_report_that_tells_of_the_end(driver: BrainDriver) -> None:
    """A worker that was told to save before the purge may have done so; its end and the count come in one report."""
    drain(driver, AfterDrain.PURGE)
    ended = WorkerReported(spec_of(driver), WorkerState.EXITED)
    driver.report(snapshot=Snapshot(full=False, workers=(ended,), saved_sessions=SOME))
    assert driver.only(ForgetAllSavedSessions).node_id == "garage"


def test_sessions_of_before_a_restart_are_saved_by_the_worker_that_was_found() -> None:
    again = BrainDriver(BrainConfig(session_ttl_s=TTL_S))
    again.handle(events.RecordsFound((Session("ui", "chat", "coder", worker_id="worker-1", warm_tokens=9),)))
    again.add_model("coder")
    again.add_node()
    spec = WorkerSpec("worker-1", "coder", "file:/models/coder.gguf", ("GPU-1",), 1, 4096, reservation_mib=(4096,))
    again.worker_ready(spec)
    again.handle(events.WorkerStopAsked("worker-1", even_if_busy=False))
    assert again.only(StopWorker).save == (SessionToSave("ui", "chat", TTL_S),)
