"""After a start of the orchestrator, what still runs on the workers goes on; what does not is done again, once."""

from dataclasses import replace

import pytest

from llorch.device_kind import DeviceKind
from llorch.errors import NotFound, Reason, Unavailable
from llorch.finish_reason import FinishReason
from llorch.worker_spec import WorkerSpec
from orchestratord.core import effects, events
from orchestratord.core.facts.fleet import Snapshot
from orchestratord.core.facts.found_run import FoundRun, TaskRecord
from orchestratord.core.facts.known_node import KnownDevice, KnownNode
from orchestratord.core.facts.promise import Fingerprint, Promise
from orchestratord.core.facts.task import ChoiceEnd, RunResult, Stopped, TaskEnd, TaskRequest, TaskState
from orchestratord.core.facts.work import Work
from support.brain_driver import BrainDriver, gpu_of

NODES = ("attic", "cellar")
REQUEST = TaskRequest("task-1", "coder", b"work", "digest", 1, durable=True)
OURS = Promise(Fingerprint("aa", ("RTX 3090",)), ("CUDA RTX 3090",), 4096)
SPOKEN = replace(REQUEST, task_id="task-9", durable=False)
"""Of a call that its client has open, or had."""


def started(*requests: TaskRequest, nodes: tuple[str, ...] = NODES) -> BrainDriver:
    """Again, with these nodes known and these tasks accepted before."""
    driver = BrainDriver()
    known = [
        KnownNode(
            name,
            "",
            f"{name}:1",
            "0",
            {},
            (KnownDevice(f"GPU-{name}", DeviceKind.CUDA, 0, "RTX 3090", 24_576, 0, "", ()),),
            (),
            {},
            "",
        )
        for name in nodes
    ]
    driver.handle(events.RecordsFound(tuple(known), 1_000_000))
    driver.add_model("coder", slots=2)
    driver.handle(events.RecoveryBegan())
    for request in requests:
        driver.handle(events.TaskRestored(request, 5.0))
    driver.forget_effects()
    return driver


def worker_of(name: str) -> WorkerSpec:
    gpus = (f"GPU-{name}",)
    return WorkerSpec(f"worker-{name}", "coder", "file:/models/coder.gguf", gpus, 2, 4096, reservation_mib=(4000,))


def comes(driver: BrainDriver, name: str, *runs: FoundRun, attaches: bool = True) -> str:
    """The node, with a worker of the model that holds these runs."""
    spec = worker_of(name)
    driver.add_node(name, gpu_of(name), staged={spec.source: 4000})
    if attaches:
        driver.worker_ready(spec, name, runs=runs)
    return spec.worker_id


def run_of(request: TaskRequest, attempt_id: str = "attempt-old", number: int = 1, entries: int = 7) -> FoundRun:
    return FoundRun(attempt_id, TaskRecord(request, 990_000), number, log_epoch=3, entries=entries)


@pytest.mark.req("ORCH-1009")
def test_a_task_that_still_runs_goes_on_where_it_is() -> None:
    driver = started(REQUEST)
    worker_id = comes(driver, "attic", run_of(REQUEST, number=2))
    assert driver.only(effects.AdoptRun) == effects.AdoptRun(worker_id, "attempt-old", "task-1", 3, 7)
    assert driver.only(effects.AnnouncePlacement).placement.attempt == 2
    task = driver.task("task-1")
    assert (task.state, task.attempts) == (TaskState.RUNNING, 2)
    assert "task-1" not in driver.state.queue
    driver.finish_attempt("attempt-old")
    assert isinstance(driver.only(effects.PersistTerminal).terminal, TaskEnd)
    driver.handle(events.TerminalPersisted("task-1"))
    assert driver.only(effects.ReleaseRuns).attempt_ids == ("attempt-old",)
    assert not driver.all_of(effects.StartRun)


def test_a_call_of_before_goes_on_and_its_reader_has_time_to_come_back() -> None:
    driver = started()
    comes(driver, "attic", run_of(SPOKEN))
    assert driver.only(effects.OpenFoundLog).request == SPOKEN
    driver.let_pass(driver.config.runs_found_within_s)
    assert not driver.task("task-9").is_finished
    driver.handle(events.ReaderAttached("task-9"))
    driver.let_pass(60)
    assert not driver.task("task-9").is_finished
    driver.handle(events.ReaderLeft("task-9"))
    driver.let_pass(3)
    assert driver.task("task-9").state is TaskState.CANCELLED


def test_a_call_of_before_that_has_ended_is_kept_by_its_worker_until_its_reader_came_back() -> None:
    """The orchestrator may be started once more before that: it found the end nowhere else."""
    driver = started()
    comes(driver, "attic", run_of(SPOKEN))
    driver.finish_attempt("attempt-old")
    assert driver.only(effects.AppendTerminal)
    driver.let_pass(driver.config.disconnect_grace_s + 1)
    assert not driver.all_of(effects.ReleaseRuns)
    driver.handle(events.ReaderAttached("task-9"))
    driver.handle(events.ReaderLeft("task-9"))
    assert driver.only(effects.ReleaseRuns).attempt_ids == ("attempt-old",)


def test_a_call_of_before_that_has_ended_is_given_up_when_its_reader_does_not_come_back() -> None:
    driver = started()
    comes(driver, "attic", run_of(SPOKEN))
    driver.finish_attempt("attempt-old")
    driver.let_pass(driver.config.runs_found_within_s + driver.config.disconnect_grace_s + 1)
    assert driver.only(effects.ReleaseRuns).attempt_ids == ("attempt-old",)
    assert driver.task("task-9").state is TaskState.COMPLETED


def test_a_call_of_before_whose_reader_does_not_come_back_is_cancelled() -> None:
    driver = started()
    comes(driver, "attic", run_of(SPOKEN))
    driver.let_pass(driver.config.runs_found_within_s + driver.config.disconnect_grace_s + 1)
    assert driver.task("task-9").state is TaskState.CANCELLED
    assert driver.only(effects.CancelRun).attempt_id == "attempt-old"


@pytest.mark.parametrize("all_come", [True, False])
def test_what_runs_nowhere_begins_anew_as_soon_as_that_is_known(all_come: bool) -> None:
    driver = started(REQUEST)
    comes(driver, "attic")
    driver.let_pass(5)
    assert not driver.all_of(effects.StartRun), "it may run on the other node"
    if all_come:
        comes(driver, "cellar")
    else:
        driver.let_pass(6)
    assert driver.only(effects.BeginAnew).task_id == "task-1"
    assert driver.only(effects.StartRun).number == 1


def test_a_worker_that_has_not_told_its_runs_is_waited_for() -> None:
    spec = WorkerSpec("worker-attic", "coder", "file:/models/coder.gguf", ("GPU-attic",), 2, 4096)
    driver = started(REQUEST, nodes=("attic",))
    ready = driver.ready_report(replace(spec, reservation_mib=(4000,)))
    driver.add_node("attic", gpu_of("attic"), workers=(ready,))
    assert not driver.all_of(effects.BeginAnew)
    driver.attach("worker-attic", run_of(REQUEST))
    assert driver.task("task-1").state is TaskState.RUNNING


def test_a_node_without_workers_has_nothing_to_tell() -> None:
    driver = started(REQUEST, nodes=("attic",))
    driver.add_node("attic", gpu_of("attic"))
    assert driver.only(effects.BeginAnew).task_id == "task-1"


def test_tasks_that_waited_keep_their_order_and_go_before_new_ones() -> None:
    requests = [replace(REQUEST, task_id=f"task-{number}") for number in (11, 12, 13)]
    driver = started(*requests, nodes=("attic",))
    new = driver.submit(durable=True)
    comes(driver, "attic")
    assert [run.request.task_id for run in driver.all_of(effects.StartRun)] == ["task-11", "task-12"]
    for run in driver.all_of(effects.StartRun):
        driver.finish_attempt(run.attempt_id)
    assert [run.request.task_id for run in driver.all_of(effects.StartRun)][2:] == ["task-13", new]


@pytest.mark.parametrize(
    "run",
    [
        FoundRun("attempt-old"),
        run_of(replace(REQUEST, task_id="task-77")),
        run_of(replace(SPOKEN, work=Work.EMBED)),
        run_of(replace(SPOKEN, model="gone")),
        run_of(replace(SPOKEN, request_id="r1")),
    ],
    ids=["no record", "durable and not stored", "has no reader that comes back", "model gone", "asked again meanwhile"],
)
def test_other_runs_are_released(run: FoundRun) -> None:
    driver = started()
    driver.submit(request_id="r1")
    comes(driver, "attic", run)
    assert driver.only(effects.ReleaseRuns).attempt_ids == ("attempt-old",)
    assert not driver.all_of(effects.AdoptRun)


def test_a_second_run_of_one_task_is_released() -> None:
    driver = started(REQUEST)
    comes(driver, "attic", run_of(REQUEST, "attempt-2", number=2))
    comes(driver, "cellar", run_of(REQUEST, "attempt-1"))
    assert driver.task("task-1").attempts == 2
    assert driver.only(effects.ReleaseRuns).attempt_ids == ("attempt-1",)


def test_a_run_that_comes_too_late_is_released() -> None:
    driver = started(REQUEST)
    comes(driver, "attic")
    driver.let_pass(11)
    begun = driver.only(effects.StartRun)
    comes(driver, "cellar", run_of(REQUEST))
    assert driver.only(effects.ReleaseRuns).attempt_ids == ("attempt-old",)
    assert driver.task("task-1").attempt is driver.state.attempts[begun.attempt_id]


def test_a_task_that_is_cancelled_before_it_is_found_ends_with_what_its_run_came_to() -> None:
    """Its readers were shown output, and the cancel takes none of it back."""
    driver = started(REQUEST)
    driver.handle(events.TaskCancelled("task-1"))
    assert driver.task("task-1").state is TaskState.CANCELLED
    assert driver.only(effects.PersistStop).task_id == "task-1"  # what is answered holds after a crash
    comes(driver, "attic", run_of(REQUEST))
    assert driver.only(effects.AdoptRun).attempt_id == "attempt-old"
    assert {effect.attempt_id for effect in driver.all_of(effects.CancelRun)} == {"attempt-old"}
    assert not driver.all_of(effects.PersistTerminal)
    cut = RunResult((ChoiceEnd(0, FinishReason.CANCELLED, 7),), tokens_out=7)
    driver.handle(events.AttemptEnded("attempt-old", cut))
    terminal = driver.only(effects.PersistTerminal).terminal
    assert isinstance(terminal, TaskEnd)
    assert terminal.result.tokens_out == 7
    assert not driver.state.attempts


def test_a_task_that_is_cancelled_and_not_found_ends_when_it_is_not_looked_for_any_more() -> None:
    driver = started(REQUEST)
    driver.handle(events.TaskCancelled("task-1"))
    driver.handle(events.TaskCancelled("task-1"))
    driver.let_pass(9)
    assert not driver.all_of(effects.PersistTerminal)
    driver.let_pass(2)
    assert isinstance(driver.only(effects.PersistTerminal).terminal, Stopped)
    assert driver.only(effects.PersistStop)


@pytest.mark.req("ORCH-1008")
def test_an_unknown_task_may_be_found_and_its_reader_is_told_to_ask_again() -> None:
    driver = started()
    with pytest.raises(Unavailable) as told:
        driver.state.task("task-9")
    assert told.value.reason is Reason.RECOVERING
    assert told.value.retry_after_ms
    for name in NODES:
        comes(driver, name)
    with pytest.raises(NotFound):
        driver.state.task("task-9")


def test_an_orchestrator_that_never_had_a_node_looks_for_nothing() -> None:
    driver = started(nodes=())
    with pytest.raises(NotFound):
        driver.state.task("task-9")


def test_a_task_that_was_found_goes_on_elsewhere_when_it_is_lost_then() -> None:
    driver = started(REQUEST)
    worker_id = comes(driver, "attic", run_of(REQUEST))
    comes(driver, "cellar")
    worker = driver.state.fleet.workers[worker_id]
    driver.worker_ended(worker.spec, "attic", failure=(Reason.WORKER_LOST, "killed by signal 9"))
    again = driver.only(effects.StartRun)
    assert (again.request.payload, again.number) == (b"work", 2)


def test_the_promise_of_a_run_that_is_found_holds_where_the_store_has_none() -> None:
    """The orchestrator was killed after the run began, and before the disk had its promise; output was shown."""
    request = replace(REQUEST, deterministic=True)
    driver = started(request)
    run = FoundRun("attempt-old", TaskRecord(request, 990_000, OURS), 1, log_epoch=3, entries=7)
    worker_id = comes(driver, "attic", run)
    comes(driver, "cellar")
    assert driver.task("task-1").attempt is not None
    worker = driver.state.fleet.workers[worker_id]
    driver.worker_ended(worker.spec, "attic", failure=(Reason.WORKER_LOST, "killed by signal 9"))
    begun = driver.all_of(effects.StartRun)
    assert not begun, f"goes on with other bytes: it may be done with {begun[0].promise} now"


def test_a_worker_of_before_whose_line_is_cut_at_the_start_is_left_alone_with_its_runs() -> None:
    """Its node hears of it. Until it is attached it may hold runs of before, which go on when the line is back."""
    driver = started(REQUEST, nodes=("attic",))
    worker_id = comes(driver, "attic", attaches=False)
    spec = worker_of("attic")
    driver.report("attic", Snapshot(full=False, workers=(driver.ready_report(spec),)))
    driver.handle(events.WorkerSilent(worker_id))
    driver.let_pass(6)
    stopped = driver.all_of(effects.StopWorker)
    assert not stopped, f"within 6 s: {stopped}"


def test_what_a_task_waited_and_how_soon_its_first_token_came_is_what_it_was_before_the_start() -> None:
    driver = started(REQUEST)  # accepted 5 s ago
    comes(driver, "attic", replace(run_of(REQUEST), age_s=4.0, output_age_s=3.0))
    driver.let_pass(1)
    driver.finish_attempt("attempt-old")
    terminal = driver.only(effects.PersistTerminal).terminal
    assert isinstance(terminal, TaskEnd)
    assert (terminal.queue_ms, terminal.first_token_ms) == (1000, 2000)


def test_a_found_task_that_is_lost_later_has_its_whole_time_for_what_is_away() -> None:
    driver = started(REQUEST)
    driver.submit(task_id="task-50")  # so that the lane is told what it waits for
    driver.let_pass(3)
    worker_id = comes(driver, "attic", run_of(REQUEST))
    task = driver.task("task-1")
    assert task.attempt is not None
    driver.handle(events.TaskCancelled("task-50"))
    driver.let_pass(300)
    driver.sessions.clear()  # its node and its worker are out of reach
    driver.handle(events.WorkerSilent(worker_id))
    lost_at = driver.now
    while not task.is_finished and driver.now < lost_at + 900:
        driver.let_pass(1)
    assert driver.now - lost_at > driver.config.recovery_window_s, f"failed after {driver.now - lost_at:.0f} s"


def test_what_waiting_tasks_were_told_goes_with_a_task_that_is_found() -> None:
    driver = started(REQUEST)
    other = driver.submit(task_id="task-50")
    driver.let_pass(3)
    driver.handle(events.TaskCancelled(other))
    comes(driver, "attic", run_of(REQUEST))
    assert "task-1" not in driver.state.queue
    assert not driver.state.waits_told
