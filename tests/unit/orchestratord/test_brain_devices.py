"""It is their computer: devices go back to their owners when they say so, or when another program needs the memory."""

from dataclasses import replace

import pytest

from llorch.errors import Reason, Unavailable
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.effects import PersistRecord
from orchestratord.core.facts.fleet import Device, EngineFacts, Leaving, Snapshot, WorkerReported
from orchestratord.core.facts.released import ReleasedDevice
from orchestratord.core.facts.task import TaskError, TaskState
from support.brain_driver import BrainDriver, gpu

CARD, OTHER = gpu("GPU-1", total_mib=10_000), gpu("GPU-2", total_mib=10_000, index=1, name="RTX 3060")


def brain(*devices: Device) -> tuple[BrainDriver, WorkerSpec]:
    """A model that is loaded on the first device."""
    driver = BrainDriver()
    driver.add_model("coder", size_mib=6000, slots=1, vram_claim_mib=6000)
    driver.add_node("garage", *devices, staged={"file:/models/coder.gguf": 6000})
    spec = driver.load_idle("coder")
    driver.forget_effects()
    return driver, spec


def release(driver: BrainDriver, for_s: float | None = None) -> None:
    until_ms = None if for_s is None else round(for_s * 1000)
    driver.handle(events.DeviceReleaseAsked("garage", ("GPU-1",), for_s, until_ms))


def others_take(driver: BrainDriver, mib: int) -> None:
    driver.report(snapshot=Snapshot(full=False, devices=(gpu("GPU-1", total_mib=10_000, others_mib=mib),)))


@pytest.mark.req("ORCH-1036")
def test_an_idle_worker_leaves_a_released_device_at_once_and_nothing_new_comes() -> None:
    driver, spec = brain(CARD, OTHER)
    release(driver)
    assert driver.only(effects.StopWorker).why is Leaving.RELEASED
    driver.worker_ended(spec)
    driver.submit("coder")
    assert driver.only(effects.StartWorker).spec.device_ids == ("GPU-2",)


@pytest.mark.req("ORCH-1036")
def test_a_busy_worker_finishes_first_and_its_reader_is_told() -> None:
    driver, _ = brain(CARD, OTHER)
    task_id = driver.submit("coder")
    release(driver)
    assert not driver.all_of(effects.StopWorker)
    told = [effect.text for effect in driver.all_of(effects.Narrate) if effect.task_id == task_id]
    assert any("goes back to its owner" in text for text in told), told
    driver.submit("coder")
    assert driver.only(effects.StartWorker).spec.device_ids == ("GPU-2",), "the next one does not wait for this worker"
    driver.finish_attempt(next(iter(driver.state.attempts)))
    assert driver.only(effects.StopWorker)


@pytest.mark.req("ORCH-1036")
def test_a_device_comes_back_when_the_operator_says_so() -> None:
    driver, spec = brain(CARD)
    release(driver)
    driver.worker_ended(spec)
    with pytest.raises(Exception, match="released to its owner") as refused:
        driver.submit("coder")
    assert getattr(refused.value, "reason", None) is Reason.NO_DEVICE
    driver.handle(events.DeviceResumeAsked("garage", ("GPU-1",)))
    driver.submit("coder")
    assert driver.only(effects.StartWorker)


@pytest.mark.req("ORCH-1036")
def test_a_device_that_was_released_for_a_time_comes_back_by_itself() -> None:
    driver, spec = brain(CARD)
    release(driver, for_s=3600)
    driver.worker_ended(spec)
    driver.let_pass(3598)
    assert ("garage", "GPU-1") in driver.state.released
    driver.let_pass(3)
    assert ("garage", "GPU-1") not in driver.state.released
    assert driver.last(PersistRecord).after is None


def test_the_last_word_about_how_long_counts() -> None:
    driver, _ = brain(CARD)
    release(driver, for_s=60)
    release(driver)
    driver.let_pass(120)
    assert ("garage", "GPU-1") in driver.state.released


@pytest.mark.req("ORCH-1036")
def test_a_release_survives_a_restart_and_ends_when_it_should() -> None:
    driver, _ = brain(CARD)
    release(driver, for_s=600)
    kept = driver.only(effects.PersistChange).changes[0].after
    assert isinstance(kept, ReleasedDevice)
    again = BrainDriver()
    again.handle(events.RecordsFound((kept,), at_ms=200_000))
    again.let_pass(399)
    assert ("garage", "GPU-1") in again.state.released
    again.let_pass(2)
    assert ("garage", "GPU-1") not in again.state.released


def test_resuming_what_was_not_released_changes_nothing() -> None:
    driver, _ = brain(CARD)
    driver.handle(events.DeviceResumeAsked("garage", ("GPU-1",)))
    assert not driver.effects


@pytest.mark.req("ORCH-1036")
def test_idle_workers_yield_to_another_program_within_five_seconds() -> None:
    driver, spec = brain(CARD)
    others_take(driver, 7000)
    driver.let_pass(3)
    assert driver.only(effects.StopWorker) == effects.StopWorker("garage", spec.worker_id, Leaving.PRESSURE)


@pytest.mark.req("ORCH-1036")
def test_busy_workers_finish_before_they_yield() -> None:
    driver, _ = brain(CARD)
    task_id = driver.submit("coder")
    others_take(driver, 7000)
    driver.let_pass(5)
    assert driver.task(task_id).state is TaskState.RUNNING
    assert any("another program took memory" in effect.text for effect in driver.all_of(effects.Narrate))
    driver.finish_attempt(next(iter(driver.state.attempts)))
    assert driver.only(effects.StopWorker)


def test_a_program_that_takes_memory_for_a_moment_evicts_no_model() -> None:
    driver, _ = brain(CARD)
    others_take(driver, 7000)
    others_take(driver, 0)
    driver.let_pass(5)
    assert not driver.all_of(effects.StopWorker)


def test_a_program_that_takes_what_is_free_evicts_no_model() -> None:
    driver, _ = brain(CARD)
    others_take(driver, 4000)
    driver.let_pass(5)
    assert not driver.all_of(effects.StopWorker)


def test_no_more_workers_leave_than_the_other_program_needs() -> None:
    driver, _ = brain(CARD)
    driver.add_model("small", size_mib=2000, vram_claim_mib=2000)
    small = driver.load_idle("small")
    driver.state.demand.note("coder")
    driver.forget_effects()
    others_take(driver, 3500)
    driver.let_pass(5)
    assert driver.only(effects.StopWorker).worker_id == small.worker_id


def test_memory_of_a_worker_that_is_ending_is_not_another_programs() -> None:
    driver, spec = brain(CARD)
    driver.add_model("small", size_mib=2000, vram_claim_mib=2000)
    driver.load_idle("small")
    driver.handle(events.WorkerStopAsked(spec.worker_id, even_if_busy=False))
    others_take(driver, 6000)
    driver.let_pass(5)
    assert driver.only(effects.StopWorker).worker_id == spec.worker_id


def test_with_every_device_released_a_task_does_not_wait_for_ever() -> None:
    driver, _ = brain(CARD)
    running, waiting = driver.submit("coder"), driver.submit("coder")
    release(driver)
    assert driver.task(running).state is TaskState.RUNNING
    driver.finish_attempt(next(iter(driver.state.attempts)))
    driver.let_pass(1)
    assert driver.task(waiting).state is TaskState.FAILED


def test_a_device_that_does_not_answer_is_not_pressed() -> None:
    driver, _ = brain(CARD)
    driver.report(snapshot=Snapshot(full=False, devices=(gpu("GPU-1", total_mib=10_000, usable=False),)))
    driver.let_pass(5)
    assert not driver.all_of(effects.StopWorker)
    driver.add_model("next")
    task_id = driver.submit("next")
    for _ in range(30):
        driver.let_pass(1)
        driver.report()
    terminal = driver.task(task_id).terminal
    assert isinstance(terminal, TaskError)
    assert (terminal.reason, terminal.retryable) == (Reason.NO_DEVICE, True)


@pytest.mark.parametrize("pinned", [False, True])
def test_with_cards_alone_that_the_engine_is_too_new_for_a_task_does_not_wait_for_ever(pinned: bool) -> None:
    driver = BrainDriver()
    driver.add_model("coder", size_mib=6000, slots=1, vram_claim_mib=6000)
    driver.add_node("garage", replace(CARD, compute_capability="3.5"), staged={"file:/models/coder.gguf": 6000})
    if pinned:
        driver.assign("coder", "garage")
    with pytest.raises(Unavailable, match=r"'coder'.*too old for the engine"):
        driver.submit("coder")
    assert not driver.state.queue.has_waiting("coder")


def test_a_worker_that_is_found_on_a_released_device_leaves_it() -> None:
    driver, spec = brain(CARD)
    release(driver)
    kept = driver.only(effects.PersistChange).changes[0].after
    assert isinstance(kept, ReleasedDevice)
    again = BrainDriver()
    again.add_model("coder")
    again.handle(events.RecordsFound((kept,), at_ms=0))
    again.add_node("garage", CARD)
    found = WorkerReported(spec, WorkerState.READY, EngineFacts("sim", "1", 1, 4096, True, False, (6000,)))
    again.report(snapshot=Snapshot(full=False, workers=(found,)))
    assert again.last(effects.StopWorker).worker_id == spec.worker_id
