"""Which models leave memory for another: none that must stay, as few as will do, and the least wanted."""

from functools import partial

import pytest

from llorch.errors import Reason
from llorch.worker_spec import WorkerSpec
from orchestratord.core import effects, events
from orchestratord.core.facts.fleet import Leaving, Worker
from orchestratord.core.facts.rules import Lane
from orchestratord.core.facts.task import TaskState
from orchestratord.core.placement import eviction
from orchestratord.core.placement.query import LoadRequest
from support.brain_driver import BrainDriver, gpu_of
from support.placement import GIB, Scene

KEY = ("garage", "GPU-1")


def brain_with(*models: tuple[str, int], total_mib: int = 12_000) -> tuple[BrainDriver, dict[str, WorkerSpec]]:
    """One device, on which these models (name, MiB) are loaded and idle, and have been for a while."""
    driver = BrainDriver()
    driver.add_node("garage", gpu_of("garage", total_mib=total_mib))
    specs: dict[str, WorkerSpec] = {}
    for name, mib in models:
        driver.add_model(name, size_mib=mib, slots=1, vram_claim_mib=mib)
        specs[name] = driver.load_idle(name)
    driver.let_pass(driver.config.min_residency_s)
    driver.forget_effects()
    return driver, specs


def cheapest(driver: BrainDriver, mib: int, *, for_tasks: bool = True) -> eviction.Eviction | None:
    """Of workers that have nothing to do."""
    driver.add_model("rival", size_mib=mib)
    request = LoadRequest(driver.state.catalog.get("rival"), Lane("rival"), context=4096, for_tasks=for_tasks)

    def may_go(worker: Worker) -> bool:
        return eviction.may_leave(driver.state, worker, request)

    return eviction.cheapest(driver.state, {KEY: mib}, may_go, partial(eviction.regret_ms, driver.state))


def evicted(driver: BrainDriver, mib: int, *, for_tasks: bool = True) -> list[str] | None:
    found = cheapest(driver, mib, for_tasks=for_tasks)
    if found is None:
        return None
    return sorted(driver.state.fleet.workers[worker_id].spec.model for worker_id in found.worker_ids)


def test_no_model_leaves_where_there_is_room() -> None:
    driver, _ = brain_with(("one", 4000))
    assert evicted(driver, 8000) == []


@pytest.mark.req("ORCH-1015")
def test_a_model_that_is_asked_for_often_is_spared() -> None:
    driver, _ = brain_with(("often", 5000), ("seldom", 5000))
    for _ in range(20):
        driver.state.demand.note("often")
    assert evicted(driver, 6000) == ["seldom"]


@pytest.mark.req("ORCH-1015")
def test_what_takes_long_to_load_is_spared() -> None:
    driver, _ = brain_with(("quick", 5000), ("slow", 5000))
    for name, took_ms in (("quick", 1_000), ("slow", 60_000)):
        driver.state.rates.loaded(name, "garage", 5000, took_ms)
        driver.state.rates.loaded(name, "garage", 5000, took_ms)
    assert evicted(driver, 6000) == ["quick"]


@pytest.mark.req("ORCH-1015")
@pytest.mark.parametrize(("slow_ms", "leaves"), [(20_000, "often"), (1000, "seldom")])
def test_what_is_asked_for_somewhat_more_often_leaves_if_it_is_loaded_much_sooner(slow_ms: int, leaves: str) -> None:
    driver, _ = brain_with(("often", 5000), ("seldom", 5000))
    for number in range(70):
        driver.state.demand.note("often" if number % 7 < 4 else "seldom")
    for name, took_ms in (("often", 1000), ("seldom", slow_ms)):
        driver.state.rates.loaded(name, "garage", 5000, took_ms)
    assert evicted(driver, 6000) == [leaves]


@pytest.mark.req("ORCH-1015")
def test_one_that_is_asked_for_all_the_time_is_no_dearer_than_two_that_are_sure_to_be_missed() -> None:
    driver, _ = brain_with(("one", 2000), ("other", 2000), ("always", 4000))
    for number in range(90):
        driver.state.demand.note(("always", "one", "always", "other", "always")[number % 5])
    assert evicted(driver, 8000) == ["always"]


@pytest.mark.req("ORCH-1015")
@pytest.mark.parametrize("took_ms", [None, 20_000])
def test_what_a_reload_costs_is_what_placing_it_there_would_cost(took_ms: float | None) -> None:
    scene = Scene()
    scene.node()
    scene.model("coder")
    if took_ms is not None:
        scene.state.rates.loaded("coder", "garage", 8 * GIB, took_ms)
    chosen = scene.place("coder").chosen
    worker = scene.worker("coder", 8 * GIB)
    assert chosen is not None
    assert eviction.reload_ms(scene.state, worker) == chosen.ms("load")


def test_no_more_leave_than_have_to() -> None:
    driver, _ = brain_with(("a", 3000), ("b", 3000), ("c", 3000))
    found = cheapest(driver, 6000)
    assert found is not None
    assert len(found.worker_ids) == 1


def test_two_unused_models_go_before_one_that_is_in_demand() -> None:
    driver, _ = brain_with(("small", 2000), ("tiny", 2000), ("loved", 4000))
    for _ in range(20):
        driver.state.demand.note("loved")
    assert evicted(driver, 8000) == ["small", "tiny"]


@pytest.mark.req("ORCH-1015")
def test_a_model_that_a_rule_keeps_loaded_never_leaves() -> None:
    driver, _ = brain_with(("kept", 5000), ("other", 5000))
    driver.assign("kept", "garage/3090", keep_loaded=True)
    assert evicted(driver, 6000) == ["other"]
    assert evicted(driver, 8000) is None


@pytest.mark.req("ORCH-1015")
def test_a_model_that_has_just_been_loaded_leaves_for_tasks_alone() -> None:
    driver, _ = brain_with()
    driver.add_model("young", size_mib=9000, slots=1, vram_claim_mib=9000)
    driver.load_idle("young")
    driver.let_pass(driver.config.min_residency_s - 1)
    assert evicted(driver, 6000, for_tasks=False) is None
    assert evicted(driver, 6000) == ["young"]
    driver.let_pass(1)
    assert evicted(driver, 6000, for_tasks=False) == ["young"]


@pytest.mark.req("ORCH-1015")
def test_what_could_never_fit_evicts_no_model() -> None:
    driver, _ = brain_with(("one", 5000), ("two", 5000))
    driver.add_model("huge", size_mib=20_000, vram_claim_mib=20_000)
    with pytest.raises(Exception, match="largest device holds 12000 MiB") as refused:
        driver.submit("huge")
    assert getattr(refused.value, "reason", None) is Reason.MODEL_FITS_NO_DEVICE
    assert not driver.all_of(effects.StopWorker)


@pytest.mark.req("ORCH-1015")
def test_the_room_that_was_made_for_a_model_is_not_taken_by_another() -> None:
    driver, specs = brain_with(("old", 10_000))
    for name in ("first", "second"):
        driver.add_model(name, size_mib=9000, slots=1, vram_claim_mib=9000)
        driver.stage(name, size_mib=9000)
    first, second = driver.submit("first"), driver.submit("second")
    assert driver.only(effects.StopWorker).why is Leaving.EVICTED
    driver.worker_ended(specs["old"])
    assert driver.only(effects.StartWorker).spec.model == "first"
    driver.load("first")
    assert driver.task(first).state is TaskState.RUNNING
    assert driver.task(second).state is TaskState.QUEUED


@pytest.mark.req("ORCH-1015")
def test_a_loading_model_blocks_only_the_tasks_that_wait_for_it() -> None:
    driver, _ = brain_with(("ready", 4000))
    driver.add_model("slow", size_mib=6000, slots=1, vram_claim_mib=6000)
    driver.stage("slow", size_mib=6000)
    driver.submit("slow")
    assert driver.only(effects.StartWorker)
    assert driver.task(driver.submit("ready")).state is TaskState.RUNNING


def test_a_worker_that_ends_by_itself_while_room_is_made_does_not_lose_the_load() -> None:
    driver, specs = brain_with(("old", 10_000))
    driver.add_model("next", size_mib=9000, slots=1, vram_claim_mib=9000)
    driver.stage("next", size_mib=9000)
    driver.submit("next")
    driver.worker_ended(specs["old"], failure=(Reason.ENGINE_FAILED, "killed by signal 9"))
    driver.let_pass(driver.config.memory_return_s)
    assert driver.only(effects.StartWorker).spec.model == "next"


def test_a_busy_worker_that_was_asked_to_leave_takes_nothing_new_and_goes_when_it_is_done() -> None:
    driver, specs = brain_with(("coder", 9000))
    running = driver.submit("coder")
    driver.handle(events.DeviceReleaseAsked("garage", ("GPU-1",)))
    waiting = None
    with pytest.raises(Exception, match="released to its owner"):
        waiting = driver.submit("coder")
    assert waiting is None
    assert driver.task(running).state is TaskState.RUNNING
    assert not driver.all_of(effects.StopWorker)
    driver.finish_attempt(next(iter(driver.state.attempts)))
    assert driver.only(effects.StopWorker) == effects.StopWorker("garage", specs["coder"].worker_id, Leaving.RELEASED)
