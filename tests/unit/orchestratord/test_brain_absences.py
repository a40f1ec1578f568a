"""What is only away: its tasks wait or are told to come back, with the true cause, and never hear "never"."""

from dataclasses import replace

import pytest

from llorch.assignment_mode import Mode
from llorch.errors import FailedPrecondition, LlorchError, Reason, Unavailable
from llorch.split_mode import SplitMode
from orchestratord.core import effects, events
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.decision import Outcome
from orchestratord.core.facts.drains import AfterDrain
from orchestratord.core.facts.fleet import Device, Pool, Snapshot
from orchestratord.core.facts.rules import Wishes
from orchestratord.core.facts.task import TaskError, TaskState
from orchestratord.core.placement.explain import explain_task
from support.brain_driver import BrainDriver, gpu

BIG = gpu("GPU-big", total_mib=24_000)
SMALL = gpu("GPU-small", total_mib=8_000, name="RTX 3050")
POOLS = (Pool("garage", "garage", ("GPU-big",)),)
GARAGE_IS_AWAY = (
    "waiting for node 'garage', which is away: it has not reported for 7 s (see to its pool manager); for 23 s at most"
)
PIN = Assignment("rule", "coder", "", ("garage",), Mode.PIN)


def two_nodes(*, pinned: bool = False, size_mib: int = 14_000, slots: int = 4) -> BrainDriver:
    """`coder` fits on `garage` alone, unless it is small; then only a rule keeps it from `attic`."""
    driver = BrainDriver()
    driver.add_model("coder", size_mib=size_mib, slots=slots)
    come(driver, "garage", BIG, pools=POOLS)
    come(driver, "attic", SMALL)
    if pinned:
        driver.handle(events.AssignmentSet(PIN))
    return driver


def come(driver: BrainDriver, node_id: str, device: Device, **contents: object) -> None:
    driver.add_node(node_id, device, staged={"file:/models/coder.gguf": 4096}, **contents)  # type: ignore[arg-type]


def pass_time(driver: BrainDriver, seconds: int, *reporting: str) -> None:
    for _ in range(seconds):
        driver.advance(1)
        for node_id in reporting:
            driver.report(node_id)


def refusal(driver: BrainDriver, **options: object) -> LlorchError:
    with pytest.raises(LlorchError) as refused:
        driver.submit(**options)  # type: ignore[arg-type]
    return refused.value


def error_of(driver: BrainDriver, task_id: str) -> TaskError:
    terminal = driver.task(task_id).terminal
    assert isinstance(terminal, TaskError)
    return terminal


def sentences(driver: BrainDriver, task_id: str) -> list[str]:
    return [said.text for said in driver.all_of(effects.Narrate) if said.task_id == task_id]


@pytest.mark.parametrize(("pinned", "size_mib"), [(True, 4_000), (True, 14_000), (False, 14_000)])
def test_a_task_whose_only_node_fell_silent_waits_says_for_what_and_runs_when_it_is_back(
    pinned: bool, size_mib: int
) -> None:
    driver = two_nodes(pinned=pinned, size_mib=size_mib)
    pass_time(driver, 7, "attic")
    task_id = driver.submit()
    assert driver.task(task_id).state is TaskState.QUEUED
    assert sentences(driver, task_id) == [GARAGE_IS_AWAY]
    pass_time(driver, 10, "attic")
    assert len(sentences(driver, task_id)) == 1, "it is told once"
    driver.report("garage")
    assert driver.only(effects.StartWorker).node_id == "garage"


def test_every_task_that_waits_is_told_and_once() -> None:
    driver = two_nodes(pinned=True)
    before = [driver.submit(priority=priority) for priority in ("batch", "interactive")]
    driver.handle(events.StagingFailed("garage", "file:/models/coder.gguf", Reason.DRAINING, "it restarts"))
    pass_time(driver, 7, "attic")
    task_ids = [*before, *(driver.submit() for _ in range(50))]
    pass_time(driver, 3, "attic")
    told = [sum("node 'garage'" in said for said in sentences(driver, task_id)) for task_id in task_ids]
    assert told == [1] * len(task_ids)


def test_a_task_that_was_accepted_for_good_waits_longer_and_for_whatever_is_away() -> None:
    driver = two_nodes()
    durable, other = driver.submit(durable=True), driver.submit()
    driver.handle(events.DeviceReleaseAsked("garage", ("GPU-big",)))
    driver.handle(events.StagingFailed("garage", "file:/models/coder.gguf", Reason.DRAINING, "it restarts"))
    driver.report("garage")
    assert error_of(driver, other).reason is Reason.NO_DEVICE
    told = "waiting for RTX 3090 of garage, which is released to its owner until `llorch gpu resume garage/0`"
    assert sentences(driver, durable)[-1] == f"{told}; for 120 s at most"
    pass_time(driver, 100, "garage", "attic")
    driver.handle(events.DeviceResumeAsked("garage", ("GPU-big",)))
    assert driver.task(durable).state is TaskState.QUEUED
    assert driver.only(effects.StartWorker).node_id == "garage"


@pytest.mark.parametrize("others", [True, False])
def test_it_waits_as_long_where_no_other_host_is_there(others: bool) -> None:
    driver = BrainDriver()
    driver.add_model("coder", size_mib=14_000)
    come(driver, "garage", BIG)
    if others:
        come(driver, "attic", SMALL)
    durable = driver.submit(durable=True)
    pass_time(driver, 60, *(["attic"] if others else []))
    assert driver.task(durable).state is TaskState.QUEUED
    explained = explain_task(driver.state, driver.task(durable))
    told = "node 'garage', which is away: it has not reported for 60 s (see to its pool manager); for 65 s at most"
    assert (explained.outcome, explained.why) == (Outcome.WAITS, told)
    pass_time(driver, 70, *(["attic"] if others else []))
    assert error_of(driver, durable).reason is Reason.NO_DEVICE


def test_a_node_is_forgotten_once_the_store_has_that() -> None:
    driver = two_nodes(pinned=True)
    pass_time(driver, 7, "attic")
    driver.store_answers = False
    driver.handle(events.NodeForgotten("garage"))
    assert "garage" in driver.state.fleet.nodes
    driver.handle(events.ChangeNotKept())
    assert "garage" in driver.state.fleet.nodes
    driver.handle(events.NodeForgotten("garage"))
    driver.report("garage")
    driver.handle(events.ChangeKept())
    driver.forget_effects()
    driver.report("garage", Snapshot(full=True, devices=(BIG,), pools=POOLS))
    kept = driver.only(effects.PersistRecord).after
    assert kept is not None
    assert kept.record_key == "garage", "it came back meanwhile, and is kept again"


def test_its_wait_has_an_end_and_the_end_can_be_explained() -> None:
    driver = two_nodes(pinned=True)
    durable = driver.submit(durable=True)
    pass_time(driver, 120, "attic")
    assert driver.task(durable).state is TaskState.QUEUED
    pass_time(driver, 10, "attic")
    error = error_of(driver, durable)
    assert (error.reason, error.retryable) == (Reason.NO_DEVICE, True)
    (why,) = (one.why for one in driver.state.decisions.newest_first() if one.task_id == durable)
    assert why == error.message


def test_a_node_that_is_forgotten_while_tasks_wait_for_it_is_not_waited_for_in_silence() -> None:
    driver = two_nodes()
    driver.submit(model="coder")
    pass_time(driver, 10, "attic")
    waiting = driver.submit()
    driver.handle(events.NodeForgotten("garage"))
    assert error_of(driver, waiting).reason is Reason.MODEL_FITS_NO_DEVICE


def test_a_stall_of_the_orchestrator_makes_no_wait_endless() -> None:
    driver = two_nodes(pinned=True)
    pass_time(driver, 7, "attic")
    waiting = driver.submit()
    for _ in range(30):
        pass_time(driver, 2, "attic")
        driver.now += 1.5
        driver.handle(events.Tick())
    assert error_of(driver, waiting).reason is Reason.NO_DEVICE


@pytest.mark.parametrize(("pinned", "size_mib"), [(True, 4_000), (True, 14_000), (False, 14_000)])
def test_after_a_while_it_is_told_to_come_back_and_why(pinned: bool, size_mib: int) -> None:
    driver = two_nodes(pinned=pinned, size_mib=size_mib)
    pass_time(driver, 7, "attic")
    waiting = driver.submit()
    pass_time(driver, 30, "attic")
    ended = error_of(driver, waiting)
    assert (ended.reason, ended.retryable) == (Reason.NO_DEVICE, True)
    for told in (ended.message, refusal(driver).message):
        assert "node 'garage' is away: it has not reported for" in told
        assert ("rule 'coder only on garage'" in told) is pinned
    assert isinstance(refusal(driver), Unavailable)
    pass_time(driver, 100, "attic")
    assert "node 'garage' is away: it has not reported for" in refusal(driver).message, "lost is away as well"
    come(driver, "garage", BIG)
    driver.submit()
    assert driver.only(effects.StartWorker).node_id == "garage"


@pytest.mark.parametrize("pinned", [True, False])
def test_a_released_card_is_told_with_when_it_comes_back(pinned: bool) -> None:
    driver = two_nodes(pinned=pinned)
    driver.handle(events.DeviceReleaseAsked("garage", ("GPU-big",)))
    refused = refusal(driver)
    assert isinstance(refused, Unavailable)
    assert "RTX 3090 of garage is released to its owner until `llorch gpu resume garage/0`" in refused.message
    driver.handle(events.DeviceReleaseAsked("garage", ("GPU-big",), duration_s=3600.0, until_ms=3_600_000))
    refused = refusal(driver)
    assert refused.message.endswith("is released to its owner for another 60 min; try again then")
    assert refused.retry_after_ms == 3_600_000
    driver.handle(events.DeviceReleaseAsked("garage", ("GPU-big",), duration_s=20.0, until_ms=20_000))
    task_id = driver.submit()
    pass_time(driver, 21, "garage", "attic")
    assert driver.only(effects.StartWorker).node_id == "garage"
    assert driver.task(task_id).state is TaskState.QUEUED


@pytest.mark.parametrize("pinned", [True, False])
def test_a_drained_pool_is_told_with_how_to_put_it_to_work(pinned: bool) -> None:
    driver = two_nodes(pinned=pinned)
    driver.handle(events.PoolDrainAsked("garage"))
    refused = refusal(driver)
    assert isinstance(refused, Unavailable)
    assert "pool garage is drained; `llorch pool reload garage` puts it to work again" in refused.message
    driver.handle(events.PoolDrainAsked("garage", after=AfterDrain.RELOAD))
    driver.submit()
    assert driver.only(effects.StartWorker).node_id == "garage"


def test_memory_that_other_programs_hold_now_does_not_make_a_model_too_large() -> None:
    driver = two_nodes()
    driver.report("garage", Snapshot(full=False, devices=(replace(BIG, others_mib=15_000),)))
    refused = refusal(driver)
    assert isinstance(refused, Unavailable)
    assert "RTX 3090 of garage is full: other programs hold 15000 MiB" in refused.message
    driver.report("garage", Snapshot(full=False, devices=(BIG,)))
    driver.submit()
    assert driver.only(effects.StartWorker).node_id == "garage"


def test_a_card_that_is_not_in_its_machine_now_is_away() -> None:
    driver = two_nodes()
    driver.handle(events.AssignmentSet(replace(PIN, targets=("garage/GPU-big",))))
    driver.report("garage", Snapshot(full=True, pools=POOLS))
    assert "garage/GPU-big is not there: node 'garage' has no GPU GPU-big any more" in refusal(driver).message


def test_a_node_that_was_forgotten_may_come_again() -> None:
    driver = two_nodes(pinned=True, size_mib=4_000)
    pass_time(driver, 7, "attic")
    driver.handle(events.NodeForgotten("garage"))
    refused = refusal(driver)
    assert isinstance(refused, Unavailable)
    assert "node 'garage' is not there" in refused.message
    come(driver, "garage", BIG)
    driver.submit()
    assert driver.only(effects.StartWorker).node_id == "garage"


def test_what_can_never_be_is_said_at_once_also_while_other_nodes_are_away() -> None:
    driver = two_nodes(size_mib=40_000)
    pass_time(driver, 7, "attic")
    assert refusal(driver).reason is Reason.MODEL_FITS_NO_DEVICE
    assert isinstance(refusal(driver), FailedPrecondition)
    driver.add_model("tiny", size_mib=1_000)
    driver.handle(events.AssignmentSet(replace(PIN, model="tiny", targets=("attic",), assignment_id="tiny")))
    never = refusal(driver, model="tiny", wishes=Wishes(pin=("garage",)))
    assert never.reason is Reason.PIN_EXCLUDES_ALL
    assert isinstance(never, FailedPrecondition)


@pytest.mark.parametrize("split", ["auto", "layer"])
def test_what_is_too_large_for_what_is_away_is_told_at_once_and_waits_for_nothing(split: str) -> None:
    driver = BrainDriver()
    driver.add_model("coder", size_mib=40_000, split=SplitMode(split))
    come(driver, "garage", BIG)
    driver.handle(events.DeviceReleaseAsked("garage", ("GPU-big",)))
    refused = refusal(driver)
    assert (refused.reason, isinstance(refused, FailedPrecondition)) == (Reason.MODEL_FITS_NO_DEVICE, True)


def test_a_silent_node_that_would_not_do_is_not_waited_for() -> None:
    driver = two_nodes()
    driver.add_node("barn", gpu("GPU-tiny", total_mib=2_000))
    driver.handle(events.AssignmentSet(PIN))
    driver.handle(events.DeviceReleaseAsked("garage", ("GPU-big",)))
    pass_time(driver, 7, "attic", "garage")
    assert "barn" not in refusal(driver).message


def test_a_load_that_is_asked_for_hears_the_same() -> None:
    driver = two_nodes(pinned=True)
    pass_time(driver, 7, "attic")
    with pytest.raises(Unavailable, match="node 'garage' is away: it has not reported for 7 s"):
        driver.handle(events.ModelLoadAsked("coder", "worker-1"))


def test_a_device_that_does_not_answer_is_waited_for_and_then_told() -> None:
    driver = two_nodes()
    driver.report("garage", Snapshot(full=False, devices=(replace(BIG, usable=False),)))
    waiting = driver.submit()
    assert sentences(driver, waiting) == ["waiting for RTX 3090 of garage, which does not answer; for 30 s at most"]
    pass_time(driver, 31, "garage", "attic")
    assert error_of(driver, waiting).reason is Reason.NO_DEVICE
    driver.report("garage", Snapshot(full=False, devices=(BIG,)))
    driver.submit()
    assert driver.only(effects.StartWorker).node_id == "garage"


def test_a_file_of_one_nodes_folder_is_not_looked_for_on_another() -> None:
    driver = BrainDriver()
    driver.add_node("garage", BIG, staged={"dir:notes.gguf": 100}, offered={"notes": "dir:notes.gguf"})
    driver.add_node("attic", SMALL)
    pass_time(driver, 7, "attic")
    task_id = driver.submit("notes")
    assert not driver.all_of(effects.StageModel)
    assert sentences(driver, task_id) == [GARAGE_IS_AWAY]
    driver.report("garage")
    assert driver.only(effects.StageModel).node_id == "garage"
    driver.handle(events.AssignmentSet(replace(PIN, model="notes", targets=("attic",))))
    assert refusal(driver, model="notes").reason is Reason.MODEL_FILE_MISSING


def test_a_task_waits_for_a_silent_node_as_long_as_it_was_told() -> None:
    driver = two_nodes()
    pass_time(driver, 7, "attic")
    task_id = driver.submit()
    assert sentences(driver, task_id)[-1].endswith("for 23 s at most")
    pass_time(driver, 22, "attic")
    assert driver.task(task_id).state is TaskState.QUEUED
    pass_time(driver, 1, "attic")
    assert error_of(driver, task_id).reason is Reason.NO_DEVICE


@pytest.mark.parametrize("began_while_away", [False, True])
def test_what_was_away_before_does_not_count_when_something_is_away_again(began_while_away: bool) -> None:
    """A task waited for the node, had a place there, and waits for its turn when the node falls silent once more."""
    driver = two_nodes(slots=1)
    driver.load_idle("coder")
    if began_while_away:
        pass_time(driver, 7, "attic")
    running, waiting = driver.submit(durable=True), driver.submit(durable=True)
    driver.report("garage")
    pass_time(driver, 200, "garage", "attic")
    assert (driver.task(running).state, driver.task(waiting).state) == (TaskState.RUNNING, TaskState.QUEUED)
    assert driver.task(waiting).placeless_since is None
    told_before = len(sentences(driver, waiting))
    pass_time(driver, 100, "attic")
    assert driver.task(waiting).state is TaskState.QUEUED
    assert any("waiting for node 'garage'" in said for said in sentences(driver, waiting)[told_before:])
    pass_time(driver, 60, "attic")
    assert error_of(driver, waiting).reason is Reason.NO_DEVICE


def test_a_task_that_goes_back_into_the_queue_begins_its_wait_then() -> None:
    driver = two_nodes()
    driver.load_idle("coder")
    pass_time(driver, 7, "attic")
    task_id = driver.submit(durable=True)
    driver.report("garage")
    assert driver.task(task_id).state is TaskState.RUNNING
    assert (driver.task(task_id).placeless_since, driver.task(task_id).waits_for) == (None, ())


def test_a_place_is_back_soon_only_when_all_is_that_it_needs() -> None:
    """The pool manager dies while its pool is reloaded, and its workers go on, so the node is never lost."""
    driver = BrainDriver()
    driver.add_model("other", size_mib=4096)
    driver.add_model("coder", size_mib=4096)
    staged = {"file:/models/coder.gguf": 4096, "file:/models/other.gguf": 4096}
    driver.add_node("garage", BIG, staged=staged, pools=POOLS)
    driver.load_idle("coder")
    pass_time(driver, 3, "garage")
    driver.handle(events.PoolDrainAsked("garage", after=AfterDrain.RELOAD))
    task_id = driver.submit("other")
    pass_time(driver, 40)
    assert error_of(driver, task_id).reason is Reason.NO_DEVICE
    assert error_of(driver, task_id).retryable
    assert "garage" in error_of(driver, task_id).message
