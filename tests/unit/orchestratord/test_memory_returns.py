"""The memory of workers that have ended, until the driver has given it back."""

from orchestratord.core import events
from orchestratord.core.effects import StartWorker
from orchestratord.core.facts.fleet import Snapshot
from orchestratord.core.facts.task import TaskState
from orchestratord.core.state import BrainConfig
from support.brain_driver import BrainDriver, gpu_of


def one_worker() -> BrainDriver:
    """One device with a worker of `coder`, which has room for no other model beside it."""
    driver = BrainDriver()
    driver.add_node("garage", gpu_of("garage", total_mib=12_000))
    for model in ("coder", "writer"):
        driver.add_model(model, vram_claim_mib=9000)
        driver.stage(model, size_mib=9000)
    driver.load_idle("coder")
    driver.forget_effects()
    return driver


def test_memory_of_a_worker_that_just_ended_is_not_held_to_be_another_programs() -> None:
    """The last report of the device was made between the end of its process and the return of its memory."""
    driver = one_worker()
    (coder,) = driver.state.fleet.workers_of_model("coder")
    driver.handle(events.ModelUnloadAsked("coder", even_if_busy=False))
    driver.report(snapshot=Snapshot(full=False, devices=(gpu_of("garage", total_mib=12_000, others_mib=9000),)))
    driver.worker_ended(coder.spec)
    waits = driver.submit("writer")
    assert driver.task(waits).state is TaskState.QUEUED, "it is not refused"
    assert not driver.all_of(StartWorker), "nor is the memory given away before it is back"
    driver.report(snapshot=Snapshot(full=False, devices=(gpu_of("garage", total_mib=12_000),)))
    assert driver.only(StartWorker).spec.model == "writer"


def test_memory_that_another_program_takes_meanwhile_stays_its_own() -> None:
    driver = one_worker()
    (coder,) = driver.state.fleet.workers_of_model("coder")
    driver.handle(events.ModelUnloadAsked("coder", even_if_busy=False))
    taken = Snapshot(full=False, devices=(gpu_of("garage", total_mib=12_000, others_mib=9000),))
    driver.report(snapshot=taken)
    driver.worker_ended(coder.spec)
    for _ in range(round(BrainConfig().memory_return_s) + 1):
        driver.advance(1)
        driver.report(snapshot=taken)
    assert driver.state.ledger.capacity(("garage", "GPU-1")) == 3000
