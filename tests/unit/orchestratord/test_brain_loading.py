"""Models come into memory: as many workers as people and tasks want, no more, and with what is known of their size."""

from itertools import pairwise

import pytest

from llorch.errors import FailedPrecondition, NotFound, Reason, Unavailable
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.effects import PersistRecord
from orchestratord.core.facts import memory_estimate
from orchestratord.core.facts.fleet import Endpoint, EngineFacts, Leaving, Snapshot, WorkerReported
from orchestratord.core.facts.loads import LoadPhase
from orchestratord.core.facts.model import ModelSpec, Origin
from orchestratord.core.facts.targets import Place
from orchestratord.core.facts.task import TaskError, TaskState
from orchestratord.core.lives import model_loading
from orchestratord.core.lives.model_loading import FAILURE_SHOWN_S
from orchestratord.views import loads as view_loads
from support.brain_driver import BrainDriver, gpu, gpu_of


def brain(*devices: object, **options: object) -> BrainDriver:
    """A node, and a model of 8000 MiB whose file is there."""
    driver = BrainDriver()
    driver.add_model("coder", size_mib=8000, **({"slots": 1, "vram_claim_mib": 8000} | options))
    driver.add_node("garage", *devices, staged={"file:/models/coder.gguf": 8000})  # type: ignore[arg-type]
    return driver


def two_cards(**options: object) -> BrainDriver:
    return brain(gpu("GPU-1", total_mib=10_000), gpu("GPU-2", total_mib=10_000, index=1, name="RTX 3060"), **options)


# Because an operator asks.


@pytest.mark.req("ORCH-1036")
def test_a_model_is_loaded_on_request_and_once() -> None:
    driver = two_cards()
    driver.handle(events.ModelLoadAsked("coder", "worker-a"))
    assert driver.only(effects.StartWorker).spec.worker_id == "worker-a"
    driver.handle(events.ModelLoadAsked("coder", "worker-b"))
    assert driver.only(effects.StartWorker)


@pytest.mark.req("ORCH-1036")
def test_it_is_loaded_where_the_operator_wants_it() -> None:
    driver = two_cards()
    driver.handle(events.ModelLoadAsked("coder", "worker-a", (Place("garage", ("GPU-2",)),)))
    assert driver.only(effects.StartWorker).spec.device_ids == ("GPU-2",)


@pytest.mark.req("ORCH-1036")
def test_another_worker_is_started_beside_the_one_that_is_there() -> None:
    driver = two_cards()
    driver.load_idle("coder")
    driver.handle(events.ModelLoadAsked("coder", "worker-b", (Place("garage"),), anew=True))
    assert driver.last(effects.StartWorker).spec.worker_id == "worker-b"


def test_a_load_that_has_no_place_now_waits_for_one() -> None:
    driver = brain(gpu(total_mib=10_000))
    driver.add_model("other", size_mib=5000, vram_claim_mib=5000)
    driver.load_idle("other")
    driver.handle(events.ModelLoadAsked("coder", "worker-a"))
    load = driver.state.loads.get("worker-a")
    assert load is not None
    assert load.phase is LoadPhase.WAITING
    driver.let_pass(driver.config.min_residency_s)
    assert driver.only(effects.StopWorker).why is Leaving.EVICTED


def test_a_load_that_can_never_succeed_is_refused() -> None:
    driver = brain(gpu(total_mib=4000))
    with pytest.raises(FailedPrecondition) as refused:
        driver.handle(events.ModelLoadAsked("coder", "worker-a"))
    assert refused.value.reason is Reason.MODEL_FITS_NO_DEVICE
    assert not len(driver.state.loads)


@pytest.mark.parametrize(("named", "started"), [("", "sim"), ("llama_cpp", "llama_cpp")])
def test_a_worker_has_the_engine_that_the_model_names_and_else_the_first_of_its_device(
    named: str, started: str
) -> None:
    driver = brain(gpu(engines=("sim", "llama_cpp")), engine=named)
    driver.handle(events.ModelLoadAsked("coder", "worker-a"))
    assert driver.only(effects.StartWorker).spec.engine == started


def test_a_node_that_reports_no_engines_chooses_and_gets_no_model_that_names_one() -> None:
    driver = brain(gpu())
    driver.handle(events.ModelLoadAsked("coder", "worker-a"))
    assert driver.only(effects.StartWorker).spec.engine == ""
    with pytest.raises(Unavailable, match="runs the engine sim that it names"):
        brain(gpu(), engine="sim").handle(events.ModelLoadAsked("coder", "worker-a"))


def test_a_load_whose_engine_no_device_offers_is_refused() -> None:
    driver = brain(gpu(engines=("llama_cpp",)), engine="sim")
    with pytest.raises(Unavailable, match="runs the engine sim that it names") as refused:
        driver.handle(events.ModelLoadAsked("coder", "worker-a"))
    assert refused.value.reason is Reason.NO_DEVICE


def test_a_load_without_any_host_is_refused() -> None:
    driver = BrainDriver()
    driver.add_model("coder")
    with pytest.raises(Unavailable):
        driver.handle(events.ModelLoadAsked("coder", "worker-a"))
    with pytest.raises(NotFound):
        driver.handle(events.ModelLoadAsked("unknown", "worker-a"))


@pytest.mark.req("ORCH-1036")
def test_a_model_is_unloaded_everywhere_unless_it_is_busy() -> None:
    driver = two_cards()
    driver.load_idle("coder")
    driver.submit("coder")
    with pytest.raises(FailedPrecondition, match=r"even_if_busy \(`llorch unload coder --force`\)"):
        driver.handle(events.ModelUnloadAsked("coder", even_if_busy=False))
    driver.handle(events.ModelUnloadAsked("coder", even_if_busy=True))
    assert driver.only(effects.StopWorker).why is Leaving.ASKED


# Because it is used, or is not.


@pytest.mark.req("ORCH-1015")
def test_a_model_leaves_when_no_task_used_it_for_its_time() -> None:
    driver = brain(idle_unload_s=60.0)
    driver.load_idle("coder")
    driver.let_pass(50)
    driver.submit("coder")
    driver.finish_attempt(next(iter(driver.state.attempts)))
    driver.let_pass(58)
    assert not driver.all_of(effects.StopWorker)
    driver.let_pass(3)
    assert driver.only(effects.StopWorker).why is Leaving.IDLE


def test_a_model_that_works_for_longer_than_its_idle_time_stays() -> None:
    driver = brain(idle_unload_s=60.0)
    driver.load_idle("coder")
    driver.submit("coder")
    driver.let_pass(200)
    assert not driver.all_of(effects.StopWorker)


@pytest.mark.req("ORCH-1015")
def test_without_an_idle_time_a_model_stays() -> None:
    driver = brain()
    driver.load_idle("coder")
    driver.let_pass(3600)
    assert not driver.all_of(effects.StopWorker)


@pytest.mark.req("ORCH-1012")
def test_a_model_that_is_to_be_kept_is_loaded_at_once_and_again_when_its_worker_has_ended() -> None:
    driver = brain()
    driver.assign("coder", "garage", keep_loaded=True)
    first = driver.only(effects.StartWorker).spec
    driver.handle(events.WorkerStartAccepted(first.worker_id, 1))
    driver.worker_ready(first)
    driver.worker_ended(first, failure=(Reason.ENGINE_FAILED, "killed by signal 9"))
    driver.let_pass(driver.config.memory_return_s)
    assert len(driver.all_of(effects.StartWorker)) == 2


@pytest.mark.req("POOL-2004")
def test_a_kept_model_that_fails_to_load_is_tried_again_ever_more_seldom() -> None:
    driver = brain()
    driver.assign("coder", "garage", keep_loaded=True)
    began: list[float] = []
    for _ in range(200):
        if len(driver.all_of(effects.StartWorker)) > len(began):
            began.append(driver.now)
            driver.worker_ended(driver.last(effects.StartWorker).spec, failure=(Reason.MODEL_LOAD_FAILED, "no"))
        driver.let_pass(1)
    pauses = [later - earlier for earlier, later in pairwise(began)]
    assert len(pauses) >= 3
    assert all(later >= 1.5 * earlier for earlier, later in pairwise(pauses)), pauses


@pytest.mark.req("ORCH-1012")
def fail_a_load() -> BrainDriver:
    driver = BrainDriver()
    driver.add_model("coder")
    driver.add_node()
    driver.submit()
    driver.stage()
    spec = driver.last(effects.StartWorker).spec
    driver.handle(events.WorkerStartFailed(spec.worker_id, Reason.MODEL_LOAD_FAILED, "no such tensor"))
    assert [shown.failure.model for shown in view_loads.failures(driver.state, driver.now)] == ["coder"]
    assert not view_loads.views(driver.state)
    return driver


def test_a_load_that_failed_is_shown_for_ten_minutes() -> None:
    driver = fail_a_load()
    driver.let_pass(FAILURE_SHOWN_S - 2)
    assert view_loads.failures(driver.state, driver.now)
    driver.let_pass(3)
    assert not view_loads.failures(driver.state, driver.now)


def test_a_wrong_command_to_a_node_is_not_told_as_a_wrong_request() -> None:
    driver = BrainDriver()
    driver.add_model("coder")
    driver.add_node()
    task_id = driver.submit()
    driver.stage()
    spec = driver.last(effects.StartWorker).spec
    driver.handle(events.WorkerStartFailed(spec.worker_id, Reason.INVALID_FIELD, "sim.step_ms: is not known"))
    terminal = driver.task(task_id).terminal
    assert isinstance(terminal, TaskError)
    assert terminal.reason is Reason.MODEL_LOAD_FAILED


def test_a_load_that_fails_again_is_shown_from_then_on() -> None:
    driver = fail_a_load()
    driver.let_pass(FAILURE_SHOWN_S / 2)
    driver.submit()
    spec = driver.last(effects.StartWorker).spec
    driver.handle(events.WorkerStartFailed(spec.worker_id, Reason.MODEL_LOAD_FAILED, "still no such tensor"))
    driver.let_pass(FAILURE_SHOWN_S / 2 + 2)
    assert [shown.failure.in_a_row for shown in view_loads.failures(driver.state, driver.now)] == [2]


@pytest.mark.parametrize(
    "event",
    [
        events.ModelRegistered(ModelSpec("coder", "file:/models/other.gguf"), Origin.CALL, "a test"),
        events.ModelDeleted("coder"),
        events.NodeForgotten("garage"),
    ],
    ids=["another-source", "deleted", "node-forgotten"],
)
def test_a_failure_of_what_is_not_there_any_more_is_not_shown(event: events.Command[object]) -> None:
    driver = fail_a_load()
    driver.advance(10)  # the node is silent
    driver.handle(event)
    assert not view_loads.failures(driver.state, driver.now)


def test_tasks_get_another_replica_when_all_slots_are_taken_and_as_many_wait() -> None:
    driver = two_cards()
    driver.assign("coder", "garage", replicas_max=2)
    driver.submit("coder")
    driver.load("coder")
    assert len(driver.all_of(effects.StartWorker)) == 1
    driver.submit("coder")
    second = driver.last(effects.StartWorker).spec
    assert second.device_ids == ("GPU-2",)
    driver.submit("coder")
    driver.submit("coder")
    assert len(driver.all_of(effects.StartWorker)) == 2, "there is room for no more, and no task wants more"


def test_without_a_word_about_replicas_one_worker_serves_all() -> None:
    driver = two_cards()
    driver.submit("coder")
    driver.load("coder")
    for _ in range(5):
        driver.submit("coder")
    assert len(driver.all_of(effects.StartWorker)) == 1


@pytest.mark.req("ORCH-1012")
def test_a_replica_that_is_no_longer_needed_leaves() -> None:
    driver = two_cards()
    driver.assign("coder", "garage", replicas_max=2)
    tasks = [driver.submit("coder")]
    driver.load("coder")
    tasks.append(driver.submit("coder"))
    driver.load("coder")
    for attempt_id in list(driver.state.attempts):
        driver.finish_attempt(attempt_id)
    driver.let_pass(driver.config.replica_idle_s + 2)
    assert driver.only(effects.StopWorker).why is Leaving.IDLE
    driver.let_pass(3600)
    assert driver.only(effects.StopWorker), "the last one stays"


@pytest.mark.req("ORCH-1015")
@pytest.mark.parametrize(("first_s", "then_s"), [(None, 120.0), (7200.0, 120.0), (60.0, 600.0)])
def test_an_idle_time_that_is_set_later_holds_for_what_is_loaded(first_s: float | None, then_s: float) -> None:
    driver = brain(idle_unload_s=first_s)
    driver.load_idle("coder")
    driver.let_pass(50)
    driver.add_model("coder", size_mib=8000, slots=1, vram_claim_mib=8000, idle_unload_s=then_s)
    driver.let_pass(then_s - 52)
    assert not driver.all_of(effects.StopWorker)
    driver.let_pass(4)
    assert driver.only(effects.StopWorker).why is Leaving.IDLE


@pytest.mark.req("ORCH-1012")
def test_what_was_kept_leaves_after_its_idle_time_once_no_rule_keeps_it() -> None:
    driver = brain(idle_unload_s=60.0)
    driver.assign("coder", "garage", assignment_id="keep", keep_loaded=True)
    driver.load("coder")
    driver.let_pass(200)
    assert not driver.all_of(effects.StopWorker)
    driver.handle(events.AssignmentDeleted("keep"))
    driver.let_pass(2)
    assert driver.only(effects.StopWorker).why is Leaving.IDLE


@pytest.mark.req("ORCH-1012")
@pytest.mark.parametrize("then", [None, 1])
def test_replicas_that_no_rule_wants_any_more_leave(then: int | None) -> None:
    driver = two_cards()
    driver.assign("coder", "garage", assignment_id="two", replicas_min=2)
    for start in driver.all_of(effects.StartWorker):
        driver.worker_ready(start.spec)
    driver.let_pass(driver.config.replica_idle_s + 2)
    assert not driver.all_of(effects.StopWorker)
    if then is None:
        driver.handle(events.AssignmentDeleted("two"))
    else:
        driver.assign("coder", "garage", assignment_id="two", replicas_min=then)
    driver.let_pass(2)
    assert driver.only(effects.StopWorker).why is Leaving.IDLE
    driver.let_pass(2 * driver.config.replica_idle_s)
    assert driver.only(effects.StopWorker), "the last one stays"


def test_the_worker_that_falls_idle_leaves_whichever_came_first() -> None:
    """The first was the only one when it was loaded, and might be idle for ever; of two, one is too many."""
    driver = two_cards()
    driver.assign("coder", "garage", replicas_max=2)
    first = driver.submit("coder")
    driver.load("coder")
    driver.submit("coder")
    second = driver.load("coder")
    driver.finish_attempt(next(a for a, one in driver.state.attempts.items() if one.task_id == first))
    driver.let_pass(driver.config.replica_idle_s + 2)
    stopped = driver.only(effects.StopWorker)
    assert stopped.why is Leaving.IDLE
    assert stopped.worker_id != second.worker_id, "the second still runs its task"


@pytest.mark.req("ORCH-1012")
def test_as_many_replicas_as_a_rule_wants_at_least_are_loaded() -> None:
    driver = two_cards()
    driver.assign("coder", "garage", replicas_min=2)
    assert {effect.spec.device_ids for effect in driver.all_of(effects.StartWorker)} == {("GPU-1",), ("GPU-2",)}


# What it takes.


@pytest.mark.req("ORCH-1014")
def test_what_a_load_really_took_is_known_for_the_next_one() -> None:
    driver = brain(vram_claim_mib=None, context=4096)
    driver.handle(events.ModelLoadAsked("coder", "worker-a"))
    spec = driver.only(effects.StartWorker).spec
    measured = EngineFacts("llama_cpp", "1", 1, 4096, False, False, (8321,))
    ready = WorkerReported(spec, WorkerState.READY, measured, Endpoint("a:1", "secret"))
    driver.report(snapshot=Snapshot(full=False, workers=(ready,)))
    assert any(getattr(effect.after, "mib", None) == (8321,) for effect in driver.all_of(PersistRecord))
    driver.worker_ended(spec)
    driver.handle(events.ModelLoadAsked("coder", "worker-b"))
    assert driver.last(effects.StartWorker).spec.reservation_mib == (8321,)


@pytest.mark.req("ORCH-1014")
@pytest.mark.parametrize(("engine", "is_known"), [("llama_cpp", True), ("sim", False)])
def test_what_one_engine_took_is_expected_of_that_engine_alone(engine: str, is_known: bool) -> None:
    options = {"vram_claim_mib": None, "context": 4096, "slots": 1}
    driver = brain(gpu(engines=("llama_cpp", "sim")), **options)
    driver.handle(events.ModelLoadAsked("coder", "worker-a"))
    spec = driver.only(effects.StartWorker).spec
    measured = EngineFacts("llama_cpp", "1", 1, 4096, False, False, (8321,))
    ready = WorkerReported(spec, WorkerState.READY, measured, Endpoint("a:1", "secret"))
    driver.report(snapshot=Snapshot(full=False, workers=(ready,)))
    driver.worker_ended(spec)
    driver.add_model("coder", size_mib=8000, engine=engine, **options)
    driver.handle(events.ModelLoadAsked("coder", "worker-b"))
    expected = (8321,) if is_known else spec.reservation_mib
    assert driver.last(effects.StartWorker).spec.reservation_mib == expected


@pytest.mark.req("ORCH-1014")
def test_what_the_owner_says_goes_before_what_was_measured() -> None:
    driver = brain(vram_claim_mib=9000)
    first = driver.load_idle("coder")
    driver.worker_ended(first)
    driver.handle(events.ModelLoadAsked("coder", "worker-b"))
    assert driver.last(effects.StartWorker).spec.reservation_mib == (9000,)


@pytest.mark.req("ORCH-1033")
def test_the_default_context_is_halved_until_it_fits_and_the_reader_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def estimate(_model: object, _size: int, context: int, shares: object, _kind: object) -> tuple[int, ...]:
        return (8000 + context // 4,)

    monkeypatch.setattr("orchestratord.core.placement.claims.estimate_split_mib", estimate)
    monkeypatch.setattr(memory_estimate, "estimate_split_mib", estimate)
    driver = brain(gpu(total_mib=11_000), vram_claim_mib=None)
    task_id = driver.submit("coder")
    assert driver.only(effects.StartWorker).spec.context_per_slot == 8192
    told = [effect.text for effect in driver.all_of(effects.Narrate) if effect.task_id == task_id]
    assert any("with context 8192: 32768 would fit on no device" in text for text in told), told


@pytest.mark.req("ORCH-1033")
def test_a_context_that_the_owner_set_is_never_lowered() -> None:
    driver = brain(gpu(total_mib=9000), vram_claim_mib=None, context=262_144)
    with pytest.raises(FailedPrecondition) as refused:
        driver.submit("coder")
    assert refused.value.reason is Reason.MODEL_FITS_NO_DEVICE


# When the outcome is unknown.


def test_a_start_that_may_have_arrived_keeps_its_memory_until_the_node_shows_that_it_did_not() -> None:
    driver = brain(gpu(total_mib=10_000))
    driver.submit("coder")
    spec = driver.only(effects.StartWorker).spec
    driver.handle(events.WorkerStartFailed(spec.worker_id, Reason.UPSTREAM_UNAVAILABLE, "no answer", command_seq=7))
    key = ("garage", "GPU-1")
    assert driver.only(effects.StopWorker).worker_id == spec.worker_id
    assert driver.state.ledger.held(key) == 8000
    driver.report(snapshot=Snapshot(full=True, devices=(gpu(total_mib=10_000),)), applied=6)
    assert driver.state.ledger.held(key) == 8000
    assert len(driver.all_of(effects.StopWorker)) == 2, "the command that takes it back is sent again"
    driver.report(snapshot=Snapshot(full=True, devices=(gpu(total_mib=10_000),)), applied=8)
    assert driver.state.ledger.held(key) == 0


def test_workers_of_a_node_that_was_silent_for_long_are_given_up() -> None:
    driver = brain()
    spec = driver.load_idle("coder")
    driver.handle(events.WorkerSilent(spec.worker_id))
    driver.advance(driver.config.node_lost_s + 1)
    assert not driver.state.fleet.workers
    assert driver.state.ledger.held(("garage", "GPU-1")) == 0


def never_attached(*refused: tuple[Reason, str]) -> tuple[BrainDriver, str]:
    """A worker that its node reports as ready, and that the link never came to; `refused`: what it answered."""
    driver = brain()
    driver.submit("coder")
    driver.stage()
    spec = driver.last(effects.StartWorker).spec
    facts = EngineFacts("sim", "1", spec.slots, spec.context_per_slot, True, False, spec.reservation_mib)
    reported = WorkerReported(spec, WorkerState.READY, facts, Endpoint("10.0.0.7:9300", "secret"))
    driver.report(snapshot=Snapshot(full=False, workers=(reported,)))
    driver.handle(events.WorkerSilent(spec.worker_id, *refused))
    driver.let_pass(driver.config.reattach_s + 1)
    assert driver.only(effects.StopWorker).worker_id == spec.worker_id
    driver.worker_ended(spec)
    failure = driver.state.load_failures.get("coder")
    return driver, "" if failure is None else failure.message


def test_a_worker_that_can_not_be_reached_is_told_with_its_ports() -> None:
    _, message = never_attached()
    assert "can't be reached at 10.0.0.7:9300" in message
    assert "open its ports in the firewall" in message


def test_a_worker_that_refuses_is_told_with_what_it_says_and_no_word_of_a_firewall() -> None:
    _, message = never_attached((Reason.TOKEN_INVALID, "the token is not this worker's"))
    assert message == (
        "the worker on node 'garage' is ready, but refuses this orchestrator: the token is not this worker's"
    )


def test_a_worker_that_obeys_another_orchestrator_makes_room_for_one_that_obeys_this_one() -> None:
    driver, message = never_attached((Reason.STALE_EPOCH, "control epoch 3 was superseded by 9"))
    assert not message
    assert len(driver.all_of(effects.StartWorker)) == 2
    spec = driver.last(effects.StartWorker).spec
    driver.handle(events.WorkerStartAccepted(spec.worker_id, 2))
    driver.worker_ready(spec)
    assert driver.only(effects.StartRun).worker_id == spec.worker_id


def test_a_node_whose_workers_can_be_heard_is_not_lost() -> None:
    driver = brain()
    driver.load_idle("coder")
    task_id = driver.submit("coder")
    driver.advance(driver.config.node_lost_s + 1)
    assert driver.task(task_id).state is TaskState.RUNNING


def test_a_model_that_is_to_stay_loaded_is_not_unloaded() -> None:
    driver = brain()
    driver.assign("coder", "garage", keep_loaded=True)
    with pytest.raises(FailedPrecondition, match="to stay loaded by an assignment"):
        driver.handle(events.ModelUnloadAsked("coder", even_if_busy=True))


def test_a_model_that_changes_while_room_is_made_for_it_is_planned_anew() -> None:
    driver = brain(gpu(total_mib=10_000))
    driver.add_model("old", size_mib=9000, vram_claim_mib=9000)
    old = driver.load_idle("old")
    driver.let_pass(driver.config.min_residency_s)
    driver.submit("coder")
    assert driver.only(effects.StopWorker)
    driver.add_model("coder", size_mib=8000, slots=1, vram_claim_mib=9500)
    driver.worker_ended(old)
    assert driver.last(effects.StartWorker).spec.reservation_mib == (9500,)


@pytest.mark.req("ORCH-1014")
def test_nothing_is_started_before_it_is_known_how_large_it_is() -> None:
    driver = BrainDriver()
    driver.add_model("coder")
    driver.add_node("garage", staged={"file:/models/coder.gguf": 8000})
    driver.submit("coder")
    assert driver.only(effects.StageModel)
    driver.stage("coder", size_mib=8000)
    assert driver.only(effects.StartWorker).spec.reservation_mib > (8000,)


@pytest.mark.parametrize(("devices_at_once", "looks"), [(100, 3), (4, 2), (1, 1)])
def test_one_event_looks_at_a_bounded_number_of_devices(
    devices_at_once: int, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left over is looked at after the next event."""
    driver = BrainDriver()
    for node_id in ("garage", "attic"):
        driver.add_node(node_id, gpu_of(node_id))
    looked: list[str] = []
    monkeypatch.setattr(model_loading, "DEVICES_AT_ONCE", devices_at_once)
    monkeypatch.setattr(model_loading, "ensure_loaded", lambda _, name: looked.append(name))
    driver.state.to_look_at = dict.fromkeys(("a", "b", "c"))
    driver.handle(events.Tick())
    assert len(looked) == looks
    driver.handle(events.Tick())
    driver.handle(events.Tick())
    assert looked == ["a", "b", "c"]


def test_a_start_that_a_former_pool_manager_accepted_is_forgotten_when_the_present_one_does_not_know_it() -> None:
    """Its answer comes when the next one has registered, whose commands begin anew."""
    driver = BrainDriver()
    driver.add_node(staged={"file:/models/coder.gguf": 4096})
    driver.add_model(size_mib=4096)
    driver.submit()
    lost = driver.only(effects.StartWorker).spec
    driver.let_pass(1)
    driver.add_node(staged={"file:/models/coder.gguf": 4096}, instance_id="the next one")
    driver.handle(events.WorkerStartAccepted(lost.worker_id, 4))
    everything = Snapshot(full=True, devices=(gpu_of("garage"),), staged={"file:/models/coder.gguf": 4096})
    driver.report(snapshot=everything)
    assert driver.last(effects.StartWorker).spec.worker_id != lost.worker_id
    driver.load()
    assert driver.only(effects.StartRun)
