"""A deterministic task whose output has begun goes on with the same fingerprint, or ends with the reason."""

from dataclasses import dataclass

import pytest

from llorch.device_kind import DeviceKind
from llorch.errors import Reason
from llorch.worker_spec import WorkerSpec
from orchestratord.core import effects, events
from orchestratord.core.facts.drains import AfterDrain
from orchestratord.core.facts.fleet import Pool, Snapshot
from orchestratord.core.facts.known_node import KnownDevice, KnownNode
from orchestratord.core.facts.promise import UNPROVEN, Fingerprint, Promise
from orchestratord.core.facts.targets import Place
from orchestratord.core.facts.task import TaskError, TaskRequest, TaskState
from orchestratord.core.placement.explain import explain_task
from support.brain_driver import BrainDriver, gpu

pytestmark = pytest.mark.req("ORCH-1038")

OURS = Fingerprint("aa", ("RTX 3090", "llama_cpp 1", "driver 555"))
OTHER_DRIVER = Fingerprint("bb", ("RTX 3090", "llama_cpp 1", "driver 550"))
OTHER_CARD = Fingerprint("cc", ("RTX 4090", "llama_cpp 1", "driver 555"))
SOURCE = "file:/models/coder.gguf"


@dataclass
class Fleet:
    """The model runs on `garage`, an RTX 3090, for a task whose output may have begun."""

    driver: BrainDriver
    task_id: str
    worker: WorkerSpec
    attempt_id: str

    @property
    def error(self) -> TaskError:
        terminal = self.driver.task(self.task_id).terminal
        assert isinstance(terminal, TaskError), f"it is {self.driver.task(self.task_id).state}"
        return terminal

    def drain(self, after: AfterDrain = AfterDrain.STAY) -> None:
        """At once: what runs on `garage` has to go on elsewhere."""
        self.driver.handle(events.PoolDrainAsked("pool-garage", 0, after=after))
        self.driver.let_pass(0.5)
        self.driver.finish_attempt(self.attempt_id, tokens_out=0)
        self.driver.worker_ended(self.worker)

    def node(self, node_id: str, name: str = "RTX 3090") -> None:
        self.driver.add_node(node_id, gpu(f"GPU-{node_id}", name=name), staged={SOURCE: 6000})

    def starts(self) -> list[str]:
        return [effect.node_id for effect in self.driver.all_of(effects.StartWorker)]

    def is_ready(self, node_id: str, fingerprint: Fingerprint) -> WorkerSpec:
        """The worker that was started there last."""
        spec = next(it.spec for it in reversed(self.driver.all_of(effects.StartWorker)) if it.node_id == node_id)
        self.driver.handle(events.WorkerStartAccepted(spec.worker_id, 1))
        self.driver.worker_ready(spec, node_id, fingerprint=fingerprint, resumes=True)
        return spec


def fleet(first: Fingerprint = OURS, *, deterministic: bool = True, begun: bool = True, **options: object) -> Fleet:
    driver = BrainDriver()
    driver.add_model("coder", size_mib=6000, slots=2, vram_claim_mib=6000, context=4096)
    driver.add_node("garage", gpu("GPU-garage"), staged={SOURCE: 6000})
    pool = Pool("pool-garage", "garage", ("GPU-garage",))
    driver.report(snapshot=Snapshot(full=True, devices=(gpu("GPU-garage"),), pools=(pool,), staged={SOURCE: 6000}))
    task_id = driver.submit("coder", deterministic=deterministic, **options)
    spec = driver.only(effects.StartWorker).spec
    driver.handle(events.WorkerStartAccepted(spec.worker_id, 1))
    driver.worker_ready(spec, fingerprint=first, resumes=True)
    attempt_id = driver.only(effects.StartRun).attempt_id
    if begun:
        driver.handle(events.AttemptFirstToken(attempt_id))
    fleet = Fleet(driver, task_id, spec, attempt_id)
    driver.forget_effects()
    return fleet


def ready_elsewhere(node_id: str, card: str, fingerprint: Fingerprint, **options: object) -> Fleet:
    """A second worker of the model is there."""
    there = fleet(**options)  # type: ignore[arg-type]  # tests name fields
    there.node(node_id, card)
    driver = there.driver
    driver.handle(events.ModelLoadAsked("coder", "worker-b", (Place(node_id),), anew=True))
    there.is_ready(node_id, fingerprint)
    driver.forget_effects()
    return there


def test_it_goes_on_where_the_fingerprint_is_equal() -> None:
    there = ready_elsewhere("attic", "RTX 3090", OURS)
    there.drain()
    again = there.driver.only(effects.StartRun)
    assert again.worker_id == "worker-b"
    assert again.promise is not None
    assert again.promise.fingerprint.digest == "aa", "the worker is told what it has to keep"
    assert there.driver.task(there.task_id).state is TaskState.RUNNING


@pytest.mark.parametrize("other", [OTHER_DRIVER, OTHER_CARD, UNPROVEN], ids=["driver", "card", "unproven"])
def test_it_never_goes_on_with_another_fingerprint(other: Fingerprint) -> None:
    there = ready_elsewhere("attic", "RTX 4090", other)
    there.drain()
    assert not there.driver.all_of(effects.StartRun)
    assert there.error.reason is Reason.DETERMINISM_UNAVAILABLE


def test_the_error_names_what_it_began_on_and_what_there_is() -> None:
    there = ready_elsewhere("attic", "RTX 4090", OTHER_CARD)
    there.drain()
    assert "began on RTX 3090, llama_cpp 1, driver 555" in there.error.message
    assert "a worker on attic has RTX 4090" in there.error.message
    assert "RTX 3090 of garage, whose pool is drained or about to be" in there.error.message
    assert there.error.retryable


@pytest.mark.req("ORCH-1012")
def test_of_one_that_waits_the_explanation_says_what_it_began_on_and_leaves_no_trace() -> None:
    it = fleet()
    it.node("attic")
    it.node("cellar", "RTX 4090")
    it.drain(AfterDrain.RELOAD)
    it.driver.worker_ended(it.worker)
    before = repr(it.driver.state)
    told = explain_task(it.driver.state, it.driver.task(it.task_id))
    assert told.task_id == it.task_id
    assert {candidate.where: candidate.filtered_by for candidate in told.candidates}["GPU 0 (RTX 4090) of cellar"] == (
        "fingerprint"
    )
    (why,) = [candidate.filter_detail for candidate in told.candidates if candidate.filtered_by == "fingerprint"]
    assert "the output began on RTX 3090, llama_cpp 1, driver 555" in why
    assert repr(it.driver.state) == before


def test_other_tasks_go_on_anywhere() -> None:
    there = ready_elsewhere("attic", "RTX 4090", OTHER_CARD, deterministic=False)
    there.drain()
    again = there.driver.only(effects.StartRun)
    assert (again.worker_id, again.promise) == ("worker-b", None)


def test_a_worker_that_has_proven_nothing_is_as_no_other_not_even_one_like_it() -> None:
    there = ready_elsewhere("attic", "RTX 3090", UNPROVEN, first=UNPROVEN)
    there.drain()
    assert there.error.reason is Reason.DETERMINISM_UNAVAILABLE


def test_without_output_it_may_begin_anew_on_another_card() -> None:
    """Nothing was shown, so no byte can differ."""
    there = ready_elsewhere("attic", "RTX 4090", OTHER_CARD, begun=False)
    there.drain()
    promise = there.driver.only(effects.StartRun).promise
    assert promise is not None
    assert promise.fingerprint.digest == "cc"


def test_what_the_first_attempt_still_says_after_its_end_counts_as_no_output() -> None:
    there = fleet(begun=False)
    there.driver.handle(events.PoolDrainAsked("pool-garage", 0))
    there.node("attic", "RTX 4090")
    there.driver.let_pass(0.5)
    there.driver.handle(events.AttemptFirstToken(there.attempt_id))
    there.is_ready("attic", OTHER_CARD)
    promise = there.driver.only(effects.StartRun).promise
    assert promise is not None
    assert promise.fingerprint.digest == "cc"


def test_it_waits_for_a_load_on_an_equal_card_rather_than_run_on_what_is_there() -> None:
    there = ready_elsewhere("attic", "RTX 4090", OTHER_CARD)
    there.node("cellar", "RTX 3090")
    there.drain()
    assert there.starts() == ["cellar"]
    there.is_ready("cellar", OURS)
    assert there.driver.only(effects.StartRun).worker_id == there.driver.only(effects.StartWorker).spec.worker_id


def test_an_equal_card_that_turns_out_to_have_another_driver_is_tried_once() -> None:
    there = fleet()
    there.node("cellar", "RTX 3090")
    there.drain()
    there.is_ready("cellar", OTHER_DRIVER)
    assert there.error.reason is Reason.DETERMINISM_UNAVAILABLE
    assert "a worker on cellar has driver 550" in there.error.message
    assert there.starts() == ["cellar"]


def test_of_two_equal_cards_the_second_is_tried_after_the_first() -> None:
    there = fleet()
    there.node("cellar", "RTX 3090")
    there.node("shed", "RTX 3090")
    there.drain()
    first = there.starts()[0]
    there.is_ready(first, OTHER_DRIVER)
    assert sorted(there.starts()) == ["cellar", "shed"]
    there.is_ready("shed" if first == "cellar" else "cellar", OURS)
    assert there.driver.task(there.task_id).state is TaskState.RUNNING


def test_what_a_place_gave_is_known_after_its_worker_has_left() -> None:
    there = fleet()
    there.node("cellar", "RTX 3090")
    there.driver.handle(events.ModelLoadAsked("coder", "worker-b", (Place("cellar"),), anew=True))
    spec = there.is_ready("cellar", OTHER_DRIVER)
    there.driver.worker_ended(spec, "cellar")
    there.driver.forget_effects()
    there.drain()
    assert there.starts() == []
    assert there.error.reason is Reason.DETERMINISM_UNAVAILABLE


def test_a_pool_manager_that_was_restarted_may_have_another_driver() -> None:
    there = fleet()
    there.node("cellar", "RTX 3090")
    there.driver.handle(events.ModelLoadAsked("coder", "worker-b", (Place("cellar"),), anew=True))
    there.driver.worker_ended(there.is_ready("cellar", OTHER_DRIVER), "cellar")
    there.driver.forget_effects()
    there.driver.now += 0.1
    there.driver.add_node("cellar", gpu("GPU-cellar"), staged={SOURCE: 6000}, instance_id="pm-2")
    there.drain()
    assert there.starts() == ["cellar"]


def test_it_waits_while_the_only_equal_card_is_in_a_pool_that_is_reloaded() -> None:
    there = fleet()
    there.node("attic", "RTX 4090")
    there.drain(AfterDrain.RELOAD)
    assert there.driver.task(there.task_id).state is TaskState.QUEUED
    there.is_ready("garage", OURS)
    assert there.driver.task(there.task_id).state is TaskState.RUNNING


def test_a_pool_of_other_cards_that_is_reloaded_is_no_reason_to_wait() -> None:
    there = fleet()
    there.node("attic", "RTX 4090")
    pool = Pool("pool-attic", "attic", ("GPU-attic",))
    card = gpu("GPU-attic", name="RTX 4090")
    there.driver.report("attic", Snapshot(full=True, devices=(card,), pools=(pool,), staged={SOURCE: 6000}))
    there.driver.handle(events.PoolDrainAsked("pool-attic", 600, after=AfterDrain.RELOAD))
    there.drain()
    there.driver.let_pass(1)
    assert there.error.reason is Reason.DETERMINISM_UNAVAILABLE


def test_a_deadline_that_passes_while_an_equal_load_is_on_its_way_is_the_reason() -> None:
    there = fleet(deadline_s=20.0)
    there.driver.add_node("cellar", gpu("GPU-cellar"))
    there.drain()
    assert there.driver.task(there.task_id).state is TaskState.QUEUED
    there.driver.let_pass(20)
    assert there.error.reason is Reason.DEADLINE_PASSED


def test_it_waits_for_an_equal_card_that_is_silent_for_a_moment() -> None:
    there = fleet()
    there.node("attic", "RTX 4090")
    there.node("cellar", "RTX 3090")
    there.driver.sessions.pop("cellar")
    there.driver.let_pass(6)
    there.drain()
    assert there.driver.task(there.task_id).state is TaskState.QUEUED
    there.driver.let_pass(31)
    assert there.error.reason is Reason.DETERMINISM_UNAVAILABLE


def test_a_deadline_that_passes_meanwhile_is_not_the_reason() -> None:
    there = fleet(deadline_s=20.0)
    there.node("attic", "RTX 4090")
    there.node("cellar", "RTX 3090")
    there.driver.sessions.pop("cellar")
    there.driver.let_pass(6)
    there.drain()
    there.driver.let_pass(20)
    assert there.driver.task(there.task_id).state is TaskState.EXPIRED
    assert there.error.reason is Reason.DETERMINISM_UNAVAILABLE


def test_with_no_device_left_at_all_that_is_the_reason() -> None:
    there = fleet()
    there.drain()
    assert there.error.reason is Reason.NO_DEVICE


def test_a_busy_equal_worker_is_waited_for() -> None:
    there = ready_elsewhere("attic", "RTX 3090", OURS)
    driver = there.driver
    for _ in range(3):
        driver.submit("coder")
    on_attic = [it.attempt_id for it in driver.all_of(effects.StartRun) if it.worker_id == "worker-b"]
    assert len(on_attic) == 2
    there.drain()
    assert driver.task(there.task_id).state is TaskState.QUEUED
    driver.finish_attempt(on_attic[0])
    assert driver.last(effects.StartRun).request.task_id == there.task_id
    assert driver.last(effects.StartRun).worker_id == "worker-b"


def test_tasks_that_have_begun_elsewhere_do_not_hold_up_those_behind_them() -> None:
    there = ready_elsewhere("attic", "RTX 4090", OTHER_CARD)
    there.node("cellar", "RTX 3090")
    there.drain()
    later = there.driver.submit("coder")
    assert there.driver.task(there.task_id).state is TaskState.QUEUED
    assert there.driver.task(later).state is TaskState.RUNNING


# What a durable task holds on to is kept.


def test_a_durable_task_keeps_its_promise_before_the_run_begins() -> None:
    driver = fleet_effects(durable=True)
    kinds = [type(effect) for effect in driver.effects]
    assert kinds.index(effects.PersistPromise) < kinds.index(effects.StartRun)
    kept = driver.only(effects.PersistPromise).promise
    assert kept == Promise(OURS, ("CUDA RTX 3090",), 4096)


def test_a_promise_of_nothing_is_taken_back_on_the_disk_too() -> None:
    there = ready_elsewhere("attic", "RTX 4090", OTHER_CARD, begun=False, durable=True)
    there.drain()
    kept = [effect.promise for effect in there.driver.all_of(effects.PersistPromise)]
    assert kept == [None, Promise(OTHER_CARD, ("CUDA RTX 4090",), 4096)]


@pytest.mark.parametrize("options", [{"durable": False}, {"durable": True, "deterministic": False}])
def test_nothing_else_is_kept(options: dict[str, bool]) -> None:
    assert not fleet_effects(**options).all_of(effects.PersistPromise)


def fleet_effects(**options: bool) -> BrainDriver:
    driver = BrainDriver()
    driver.add_model("coder", size_mib=6000, vram_claim_mib=6000, context=4096)
    driver.add_node("garage", gpu("GPU-garage"), staged={SOURCE: 6000})
    driver.submit("coder", **({"deterministic": True} | options))
    spec = driver.only(effects.StartWorker).spec
    driver.worker_ready(spec, fingerprint=OURS, resumes=True)
    return driver


def restarted(promise: Promise | None, context: int = 4096) -> BrainDriver:
    driver = BrainDriver()
    driver.add_model("coder", size_mib=6000, vram_claim_mib=6000, context=context)
    card = KnownDevice("GPU-garage", DeviceKind.CUDA, 0, "RTX 3090", 24 * 1024, 0, "", ())
    garage = KnownNode("garage", "", "garage:9200", "0", {}, (card,), (), {}, "")
    driver.handle(events.RecordsFound((garage,)))
    driver.handle(events.RecoveryBegan())
    request = TaskRequest("task-1", "coder", b"", "digest", 1, durable=True, deterministic=True)
    driver.handle(events.TaskRestored(request, 5.0, promise=promise))
    return driver


def node(driver: BrainDriver, node_id: str, card: str, fingerprint: Fingerprint) -> None:
    """It comes with a worker of the model, which is taken back."""
    driver.add_node(node_id, gpu(f"GPU-{node_id}", name=card), staged={SOURCE: 6000})
    spec = WorkerSpec(f"worker-{node_id}", "coder", SOURCE, (f"GPU-{node_id}",), 4, 4096, reservation_mib=(6000,))
    driver.worker_ready(spec, node_id, fingerprint=fingerprint, resumes=True)


def test_after_a_restart_it_goes_on_only_where_it_began() -> None:
    """Whichever of the nodes comes first."""
    driver = restarted(Promise(OURS, ("CUDA RTX 3090",), 4096))
    node(driver, "attic", "RTX 4090", OTHER_CARD)
    driver.let_pass(5)
    assert not driver.all_of(effects.StartRun)
    assert driver.task("task-1").state is TaskState.QUEUED
    node(driver, "garage", "RTX 3090", OURS)
    assert driver.only(effects.StartRun).worker_id == "worker-garage"


def test_after_a_restart_a_node_that_does_not_come_is_waited_for_as_long_as_it_is_expected_back() -> None:
    driver = restarted(Promise(OURS, ("CUDA RTX 3090",), 4096))
    node(driver, "attic", "RTX 4090", OTHER_CARD)
    driver.state.look_by(driver.now + 10)
    driver.let_pass(119)
    assert driver.task("task-1").state is TaskState.QUEUED
    driver.let_pass(2)
    terminal = driver.task("task-1").terminal
    assert isinstance(terminal, TaskError)
    assert terminal.reason is Reason.DETERMINISM_UNAVAILABLE


def test_a_model_with_another_context_by_now_is_not_loaded_to_find_out() -> None:
    driver = restarted(Promise(OURS, ("CUDA RTX 3090",), 4096), context=2048)
    driver.add_node("garage", gpu("GPU-garage"), staged={SOURCE: 6000})
    driver.let_pass(31)
    terminal = driver.task("task-1").terminal
    assert isinstance(terminal, TaskError)
    assert terminal.reason is Reason.DETERMINISM_UNAVAILABLE
    assert not driver.all_of(effects.StartWorker)


def test_a_promise_of_before_a_restart_stays_though_nothing_was_shown_since() -> None:
    driver = restarted(Promise(OURS, ("CUDA RTX 3090",), 4096))
    node(driver, "garage", "RTX 3090", OURS)
    driver.add_node("attic", gpu("GPU-attic", name="RTX 4090"), staged={SOURCE: 6000})
    pool = Pool("pool-garage", "garage", ("GPU-garage",))
    driver.report(snapshot=Snapshot(full=False, pools=(pool,)))
    driver.state.fleet.nodes["garage"].pools["pool-garage"] = pool
    driver.handle(events.PoolDrainAsked("pool-garage", 0))
    driver.let_pass(31)
    terminal = driver.task("task-1").terminal
    assert isinstance(terminal, TaskError)
    assert terminal.reason is Reason.DETERMINISM_UNAVAILABLE


def test_without_a_promise_it_begins_where_it_can() -> None:
    """One that an earlier release accepted: nothing of its output is kept, and it starts over."""
    driver = restarted(None)
    node(driver, "attic", "RTX 4090", OTHER_CARD)
    driver.let_pass(11)  # for so long it might run on the other node
    assert driver.only(effects.StartRun).worker_id == "worker-attic"
