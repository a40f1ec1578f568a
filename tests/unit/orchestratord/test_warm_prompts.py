"""A prompt whose beginning a worker has evaluated for another one goes there, if that is done first."""

import time
import tracemalloc
from array import array

import pytest

from llorch.errors import Reason
from llorch.finish_reason import FinishReason
from llorch.gguf.facts import ModelFacts
from llorch.gguf.layers import Layer
from llorch.worker_spec import WorkerSpec
from llorch.worker_state import WorkerState
from orchestratord.core import effects, events
from orchestratord.core.facts import warmth
from orchestratord.core.facts.fleet import Snapshot, WorkerReported
from orchestratord.core.facts.task import ChoiceEnd, RunResult, TaskError
from orchestratord.core.facts.warmth import BLOCK_BYTES, PromptHead, Warmth
from orchestratord.core.learnt.rates import Run
from orchestratord.core.placement.prediction import device_of
from support.brain_driver import BrainDriver
from support.two_workers import crash, two_workers

pytestmark = pytest.mark.req("ORCH-1018")


def own(text: str, count: int) -> PromptHead:
    """A prompt that begins like no other one."""
    return PromptHead(array("Q", [hash((text, at)) % 2**64 for at in range(count)]), count * BLOCK_BYTES)


def after(first: PromptHead, text: str, count: int) -> PromptHead:
    """`first`, and so many blocks of something else."""
    rest = own(text, count)
    return PromptHead(array("Q", [*first.blocks, *rest.blocks]), first.size + rest.size)


@pytest.fixture
def driver() -> BrainDriver:
    driver, _ = two_workers(slots=4)
    return driver


def run(driver: BrainDriver, head: PromptHead) -> str:
    """A task with this prompt runs, and ends; the worker it went to. 1,000 tokens take 0.5 s to evaluate."""
    worker_id = begin(driver, head)
    tokens = head.size // 4
    choices = (ChoiceEnd(0, FinishReason.EOS, 101),)
    result = RunResult(choices, tokens, 101, decode_ms=1000, prefill_ms=tokens // 2)
    driver.handle(events.AttemptEnded(driver.last(effects.StartRun).attempt_id, result))
    return worker_id


def begin(driver: BrainDriver, head: PromptHead, max_tokens: int | None = None) -> str:
    """A task with this prompt runs; the worker it went to. It ends at its limit, where it has one."""
    driver.submit(head=head, prompt_tokens=head.size // 4, max_tokens=max_tokens, fills_limit=max_tokens is not None)
    return driver.last(effects.StartRun).worker_id


def test_conversations_without_a_session_stay_where_they_began(driver: BrainDriver) -> None:
    talks = {name: own(name, 40) for name in "abcd"}
    places = {name: run(driver, talk) for name, talk in talks.items()}
    assert sorted(places.values()) == sorted([*driver.state.fleet.workers] * 2), "new ones go where less is kept"
    for turn in range(3):
        for name in "dbca":
            talks[name] = after(talks[name], f"{name}{turn}", 4)
            assert run(driver, talks[name]) == places[name]


def test_a_beginning_that_prompts_share_draws_them_until_company_costs_more(driver: BrainDriver) -> None:
    """5,000 tokens take 2.5 s to evaluate, and each of two that run beside each other takes 1 s longer than alone."""
    card = device_of(driver.state, next(iter(driver.state.fleet.workers.values())))
    for batch, ms_per_token in ((1, 10), (2, 20), (3, 50), (4, 100)):
        ran = Run("", "coder", card, batch, 5000, 5000, 0, 101, 1, False, 2500, 100 * ms_per_token)
        driver.state.rates.ran(ran)
    shared = own("system", 40)
    warm = run(driver, after(shared, "a", 1))
    places = [begin(driver, after(shared, name, 1), max_tokens=100) for name in "bcde"]
    assert [place == warm for place in places] == [True, True, False, False]


def test_the_decision_says_what_is_saved(driver: BrainDriver) -> None:
    talk = own("talk", 40)
    warm = run(driver, talk)
    driver.submit(head=after(talk, "more", 4), prompt_tokens=44 * BLOCK_BYTES // 4)
    ranked = next(driver.state.decisions.newest_first()).candidates
    assert ranked[0].worker_id == warm
    assert ranked[0].ms("prefill") == pytest.approx(ranked[1].ms("prefill") * 4 / 44)


def test_a_worker_that_ended_is_warm_no_more(driver: BrainDriver) -> None:
    talk = own("talk", 40)
    warm = run(driver, talk)
    assert driver.state.warmth.bytes
    crash(driver, warm)
    assert driver.state.warmth == Warmth()


REFUSED = TaskError(Reason.CONTEXT_TOO_LONG, "too long")
CANCELLED = RunResult((ChoiceEnd(0, FinishReason.CANCELLED),))
"""Before its first token."""


@pytest.mark.parametrize(
    ("outcome", "ended_before"),
    [(REFUSED, False), (REFUSED, True), (CANCELLED, True)],
    ids=["refused", "refused too late", "cancelled"],
)
def test_a_run_that_evaluated_nothing_left_nothing(
    driver: BrainDriver, outcome: TaskError | RunResult, *, ended_before: bool
) -> None:
    worker_id = begin(driver, own("talk", 40))
    started = driver.last(effects.StartRun)
    assert driver.state.warmth.prompts_of(worker_id) == 1
    if ended_before:
        driver.handle(events.TaskCancelled(started.request.task_id))
        driver.let_pass(30)
    driver.handle(events.AttemptEnded(started.attempt_id, outcome))
    assert driver.state.warmth.prompts_of(worker_id) == 0


def test_a_turn_that_was_refused_leaves_the_conversation_as_it_was(driver: BrainDriver) -> None:
    talk = own("talk", 40)
    warm = run(driver, talk)
    assert begin(driver, after(talk, "too much", 100)) == warm
    driver.handle(events.AttemptEnded(driver.last(effects.StartRun).attempt_id, REFUSED))
    driver.state.warmth.task_came("next", after(talk, "less", 4))
    assert driver.state.warmth.share("next", warm) == pytest.approx(40 / 44)


def test_a_recurrent_model_goes_on_from_whole_prompts_alone(driver: BrainDriver) -> None:
    """Its state is that of all tokens together, so that instructions which prompts share are evaluated anew."""
    layer = Layer(0, 0, 0, windowed=False, state_bytes=4096, weight_bytes=1)
    facts = ModelFacts("mamba", 8192, (layer,), 0, 32_000, 512, 1000, 100, 100, tied_output=True)
    driver.state.catalog.get("coder").facts = facts
    shared = own("system", 40)
    first = run(driver, after(shared, "a", 4))
    assert begin(driver, after(shared, "b", 4)) != first, "where less is kept"
    assert begin(driver, after(after(shared, "a", 4), "more", 4)) == first


def test_what_a_worker_keeps_no_more_is_forgotten_the_oldest_first(driver: BrainDriver) -> None:
    talks = [own(str(number), 4) for number in range(12)]
    places = [run(driver, talk) for talk in talks]
    worker_id = places[0]
    spec = driver.state.fleet.workers[worker_id].spec
    kept = driver.state.warmth.prompts_of(worker_id)
    assert kept == 6, "the other worker has the others"
    tell(driver, spec, warm_prompts=5)
    assert driver.state.warmth.prompts_of(worker_id) == 5
    tell(driver, spec, warm_prompts=0)
    assert driver.state.warmth.prompts_of(worker_id) == 4, "as many as it has slots"
    mine = [talk for talk, place in zip(talks, places, strict=True) if place == worker_id]
    known = Warmth.share
    driver.state.warmth.task_came("oldest", mine[0])
    driver.state.warmth.task_came("newest", mine[-1])
    assert [known(driver.state.warmth, task, worker_id) for task in ("oldest", "newest")] == [0.0, 1.0]


def tell(driver: BrainDriver, spec: WorkerSpec, warm_prompts: int) -> None:
    reported = WorkerReported(spec, WorkerState.READY, warm_prompts=warm_prompts)
    driver.report(driver.state.fleet.workers[spec.worker_id].node_id, Snapshot(full=False, workers=(reported,)))


def test_a_waiting_task_is_sent_with_what_was_known_when_it_came(driver: BrainDriver) -> None:
    talk = own("talk", 40)
    first = run(driver, talk)
    for _ in range(8):
        begin(driver, own("busy", 1))
    waiting = driver.submit(head=after(talk, "more", 4), prompt_tokens=5000)
    assert waiting in driver.state.queue
    attempts = {each.worker_id: each.attempt_id for each in driver.all_of(effects.StartRun)}
    driver.finish_attempt(attempts[first])
    assert driver.last(effects.StartRun).worker_id == first
    driver.state.warmth.task_came("next", after(talk, "more", 4))
    assert driver.state.warmth.share("next", first) == 1.0


class TestIndex:
    def test_a_prompt_that_goes_on_has_the_place_of_the_one_before(self) -> None:
        index = Warmth()
        first = own("a", 10)
        for number, one in enumerate([first, after(first, "b", 2), after(first, "c", 2)]):
            index.task_came(f"task-{number}", one)
            index.evaluated("worker", index.sent(f"task-{number}", "worker"))
        assert index.prompts_of("worker") == 2, "b and c share a beginning, and neither goes on from the other"
        assert index.share("task-0", "worker") == 1.0
        index.keeps("worker", 1)
        assert index.share("task-1", "worker") == pytest.approx(10 / 12)
        index.keeps("worker", 0)
        assert (index.share("task-1", "worker"), index.bytes) == (0.0, 0)

    @pytest.mark.parametrize("common", [0, 1, 2, 7, 99, 100])
    def test_a_share_is_what_is_there_of_the_prompt(self, common: int) -> None:
        index = Warmth()
        whole = own("a", 100)
        index.task_came("there", PromptHead(whole.blocks[:common], common * BLOCK_BYTES))
        index.sent("there", "worker")
        index.task_came("asked", PromptHead(whole.blocks, 101 * BLOCK_BYTES))
        assert index.share("asked", "worker") == pytest.approx(common / 101)
        assert index.share("asked", "other") == 0.0

    def test_it_is_bounded_in_bytes_and_drops_what_was_used_longest_ago(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(warmth, "MOST_BYTES", 2**20)
        index = Warmth()
        for number in range(200):
            index.task_came(str(number), own(str(number), 100))
            index.sent(str(number), f"worker-{number % 7}")
            index.task_came("first", own("0", 100))
            index.sent("first", "worker-0")
            assert index.bytes <= 2**20
        assert index.share("0", "worker-0") == 1.0, "it was used again each time"
        assert index.share("1", "worker-1") == 0.0
        assert index.share("199", f"worker-{199 % 7}") == 1.0

    def test_it_takes_no_more_memory_than_it_counts(self) -> None:
        tracemalloc.start()
        try:
            index = Warmth()
            for number in range(300):
                index.task_came("task", own(str(number), 100))
                index.sent("task", f"worker-{number % 3}")
            index.task_went("task")
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert 0.3 * index.bytes < taken < index.bytes

    def test_an_end_leaves_nothing(self) -> None:
        index = Warmth()
        for name in ("a", "b"):
            index.task_came(name, own(name, 10))
            last = index.sent(name, "worker")
            assert index.sent(name, "worker") == last
            index.evaluated("worker", last)
        index.not_evaluated("worker", last)
        index.not_evaluated("worker", last)
        index.worker_gone("worker")
        index.evaluated("worker", last)
        for name in ("a", "b"):
            index.task_went(name)
        assert index == Warmth()

    def test_many_short_prompts_are_forgotten_at_once(self) -> None:
        """Not one after the other past those that are gone already."""
        index = Warmth()
        for number in range(20_000):
            index.task_came("task", own(str(number), 1))
            index.sent("task", "worker")
        begin = time.thread_time()
        index.keeps("worker", 4)
        index.worker_gone("worker")
        assert time.thread_time() - begin < 0.1
