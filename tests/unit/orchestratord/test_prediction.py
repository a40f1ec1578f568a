"""What is predicted is judged: a queue in virtual time, whose runs take what an engine of that speed would take."""

from dataclasses import dataclass, field
from random import Random
from statistics import median

import pytest

from llorch.errors import Reason
from llorch.finish_reason import FinishReason
from orchestratord.core import effects, events
from orchestratord.core.facts.task import ChoiceEnd, RunResult, TaskError, TaskRequest
from orchestratord.core.state import BrainConfig
from support.brain_driver import BrainDriver

pytestmark = pytest.mark.req("ORCH-1016")

PREFILL_S_PER_TOKEN = 0.0005
ANSWERS = (4.5, 0.6)
"""Of a lognormal distribution: 108 tokens on the average, 90 in the median."""
MEAN_RUN_S = 108 * 0.022 + 0.13


@dataclass
class Run:
    prompt: int
    tokens: int
    began: float
    prefill_left_s: float
    first_token: float = 0.0
    done: int = 0


@dataclass
class Engine:
    """One worker. A step takes longer the more run with it; answers have lengths as those of chats have."""

    driver: BrainDriver
    random: Random
    runs: dict[str, Run] = field(default_factory=dict)
    starts: list[effects.PredictionJudged] = field(default_factory=list)
    on_time: list[effects.OnTimeJudged] = field(default_factory=list)

    def tell(self, event: events.Event) -> None:
        for effect in self.driver.brain.handle(event, self.driver.now).effects:
            if isinstance(effect, effects.StartRun):
                self._begin(effect)
            elif isinstance(effect, effects.CancelRun):
                self._end(effect.attempt_id, FinishReason.CANCELLED)
            elif isinstance(effect, effects.PredictionJudged):
                self.starts.append(effect)
            elif isinstance(effect, effects.OnTimeJudged):
                self.on_time.append(effect)

    def run_until(self, end: float) -> None:
        """Steps of decoding; while nothing runs, time passes at once."""
        while self.runs and self.driver.now < end:
            step_s = 0.010 + 0.003 * len(self.runs)
            self.driver.now += step_s
            for attempt_id, run in list(self.runs.items()):
                if attempt_id in self.runs:
                    self._step(attempt_id, run, step_s)
        self.driver.now = max(self.driver.now, end)
        self.tell(events.Tick())

    def _begin(self, effect: effects.StartRun) -> None:
        prompt = round(effect.request.prompt_tokens * 1.3)
        tokens = max(1, round(self.random.lognormvariate(*ANSWERS)))
        self.runs[effect.attempt_id] = Run(prompt, tokens, self.driver.now, prompt * PREFILL_S_PER_TOKEN)

    def _step(self, attempt_id: str, run: Run, step_s: float) -> None:
        if run.prefill_left_s > 0:
            run.prefill_left_s -= step_s
            run.first_token = self.driver.now
            return
        run.done += 1
        if run.done == run.tokens:
            self._end(attempt_id, FinishReason.EOS)

    def _end(self, attempt_id: str, reason: FinishReason) -> None:
        run = self.runs.pop(attempt_id)
        first_token = run.first_token or self.driver.now
        result = RunResult(
            (ChoiceEnd(0, reason, run.done),),
            tokens_in=run.prompt,
            tokens_out=run.done,
            prefill_ms=round((first_token - run.began) * 1000),
            decode_ms=round((self.driver.now - first_token) * 1000),
        )
        self.tell(events.AttemptEnded(attempt_id, result))


def begin(seed: int = 1) -> Engine:
    """A worker with four slots that has done nothing yet."""
    driver = BrainDriver(BrainConfig(queue_capacity=10_000, disconnect_grace_s=1e9, node_lease_s=1e9))
    driver.add_model("coder", slots=4, context=2048)
    driver.add_node()
    driver.submit()
    driver.load()
    driver.handle(events.AttemptEnded(driver.only(effects.StartRun).attempt_id, TaskError(Reason.INTERNAL, "a test")))
    driver.forget_effects()
    return Engine(driver, Random(seed))  # noqa: S311  # a schedule, not a secret


def submit(engine: Engine, number: int, deadline_s: float | None = None) -> None:
    engine.tell(
        events.TaskSubmitted(
            TaskRequest(
                task_id=f"t{number}",
                model="coder",
                payload=b"",
                content_digest="",
                seed=1,
                prompt_tokens=engine.random.randrange(50, 300),
                deadline_s=deadline_s,
            )
        )
    )


def serve(engine: Engine, tasks: int, *, busy: float, with_deadlines: bool = False) -> None:
    """Tasks come at random, so many that the engine is `busy` on the average (1 = as many as it can do)."""
    first = len(engine.driver.state.tasks)
    for number in range(first, first + tasks):
        engine.run_until(engine.driver.now + engine.random.expovariate(4 * busy / MEAN_RUN_S))
        submit(engine, number, engine.random.uniform(2, 8) if with_deadlines else None)


def relative_errors(engine: Engine) -> list[float]:
    return [abs(one.predicted_ms - one.actual_ms) / max(1.0, one.actual_ms) for one in engine.starts]


def test_nothing_is_predicted_of_what_was_never_seen() -> None:
    engine = begin()
    for number in range(5):
        submit(engine, number, deadline_s=60.0)
    tasks = [engine.driver.task(f"t{number}") for number in range(5)]
    assert [task.predicted_start_ms for task in tasks] == [0, 0, 0, 0, None]
    assert {task.on_time for task in tasks} == {None}


def test_the_start_of_a_model_new_to_its_node_is_predicted_by_what_others_took_there() -> None:
    driver = BrainDriver()
    driver.add_model("coder", size_mib=4000)
    driver.add_node()
    driver.state.rates.loaded("writer", "garage", 8000, 20_000)
    driver.stage("coder", size_mib=4000)
    driver.submit("coder")
    predicted_ms = driver.task(driver.submit("coder")).predicted_start_ms
    assert predicted_ms is not None
    assert 8000 < predicted_ms < 12_000


@pytest.mark.parametrize("seed", range(3))
def test_the_start_of_waiting_tasks_is_predicted(seed: int) -> None:
    engine = begin(seed)
    serve(engine, 50, busy=1.3)
    engine.starts.clear()
    serve(engine, 200, busy=1.1)
    assert len(engine.starts) > 100, "most of them had to wait"
    assert median(relative_errors(engine)) <= 0.25


@pytest.mark.parametrize("seed", range(3))
def test_the_probability_of_being_in_time_says_more_than_how_often_tasks_are_in_time(seed: int) -> None:
    engine = begin(seed)
    serve(engine, 50, busy=0.9)
    engine.on_time.clear()
    serve(engine, 300, busy=0.95, with_deadlines=True)
    outcomes = [float(one.met) for one in engine.on_time]
    rate = sum(outcomes) / len(outcomes)
    assert 0.2 < rate < 0.9
    assert len(outcomes) > 200
    brier = sum((one.probability - one.met) ** 2 for one in engine.on_time) / len(outcomes)
    assert brier < 0.9 * rate * (1 - rate), f"{brier:.3f} against {rate * (1 - rate):.3f}"
