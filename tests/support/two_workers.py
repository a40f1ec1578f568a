"""A model with a worker on each of two hosts, and what happens to them."""

from dataclasses import replace

from llorch.errors import Reason
from llorch.worker_spec import WorkerSpec
from orchestratord.core import effects, events
from orchestratord.core.facts.fleet import Leaving, Snapshot
from orchestratord.core.facts.targets import Place
from support.brain_driver import BrainDriver, gpu_of

KILLED = (Reason.WORKER_LOST, "killed by signal 9")
HOSTS = ("attic", "cellar")


def two_workers(slots: int = 1) -> tuple[BrainDriver, dict[str, WorkerSpec]]:
    """Of one model, on two hosts, idle."""
    driver = BrainDriver()
    driver.add_model("coder", slots=slots)
    specs = {}
    for host in HOSTS:
        driver.add_node(host, gpu_of(host))
    for host in HOSTS:
        driver.handle(events.ModelLoadAsked("coder", f"worker-{host}", (Place(host, ()),), anew=True))
        for at in HOSTS:
            if "file:/models/coder.gguf" not in driver.state.fleet.nodes[at].staged:
                driver.stage("coder", at)
        spec = driver.last(effects.StartWorker)
        driver.handle(events.WorkerStartAccepted(spec.spec.worker_id, 1))
        driver.worker_ready(spec.spec, spec.node_id)
        specs[spec.node_id] = spec.spec
    driver.forget_effects()
    assert set(specs) == set(HOSTS)
    return driver, specs


def start(driver: BrainDriver, *, output: bool = True) -> tuple[str, effects.StartRun]:
    task_id = driver.submit()
    run = driver.last(effects.StartRun)
    assert run.request.task_id == task_id
    driver.handle(events.AttemptStarted(run.attempt_id, 5))
    if output:
        driver.handle(events.AttemptFirstToken(run.attempt_id))
    return task_id, run


def host_of(driver: BrainDriver, worker_id: str) -> str:
    return driver.state.fleet.workers[worker_id].node_id


def crash(driver: BrainDriver, worker_id: str) -> None:
    worker = driver.state.fleet.workers[worker_id]
    driver.worker_ended(worker.spec, worker.node_id, failure=KILLED)


def hang(driver: BrainDriver, worker_id: str) -> None:
    """Nothing answers there any more, and it is ended."""
    spec, host = driver.state.fleet.workers[worker_id].spec, host_of(driver, worker_id)
    stops_answering(driver, worker_id)
    driver.worker_ended(spec, host)


def stops_answering(driver: BrainDriver, worker_id: str) -> None:
    """Also to its pool manager, which is told to stop it."""
    spec, host = driver.state.fleet.workers[worker_id].spec, host_of(driver, worker_id)
    driver.report(host, Snapshot(full=False, workers=(replace(driver.ready_report(spec), answers=False),)))
    fall_silent(driver, worker_id)
    assert effects.StopWorker(host, worker_id, Leaving.STUCK) in driver.effects


def fall_silent(driver: BrainDriver, worker_id: str) -> None:
    driver.handle(events.WorkerSilent(worker_id))
    driver.let_pass(2.5)
