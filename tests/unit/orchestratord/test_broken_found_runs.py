"""What a run that is found knows and the store does not."""

from dataclasses import replace

from llorch.errors import Reason
from orchestratord.core import effects
from orchestratord.core.facts.found_run import FoundRun, TaskRecord
from orchestratord.core.facts.promise import Fingerprint, Promise
from unit.orchestratord.test_brain_found_runs import REQUEST, comes, started

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
