"""What a run that is found knows and the store does not."""

from dataclasses import replace

from llorch.errors import Reason
from llorch.worker_spec import WorkerSpec
from orchestratord.core import effects, events
from orchestratord.core.facts.fleet import Snapshot
from orchestratord.core.facts.found_run import FoundRun, TaskRecord
from orchestratord.core.facts.promise import Fingerprint, Promise
from unit.orchestratord.test_brain_found_runs import REQUEST, comes, started

SPEC = WorkerSpec("worker-attic", "coder", "file:/models/coder.gguf", ("GPU-attic",), 2, 4096, reservation_mib=(4000,))
OURS = Promise(Fingerprint("aa", ("RTX 3090",)), ("CUDA RTX 3090",), 4096)


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
    spec = replace(SPEC, worker_id=worker_id)
    driver.report("attic", Snapshot(full=False, workers=(driver.ready_report(spec),)))
    driver.handle(events.WorkerSilent(worker_id))
    driver.let_pass(6)
    stopped = driver.all_of(effects.StopWorker)
    assert not stopped, f"within 6 s: {stopped}"
