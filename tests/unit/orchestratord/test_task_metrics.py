"""What a reader is told about the speed of its task."""

import pytest

from llama_orch.v2 import log_entry_pb2
from orchestratord.api.task_metrics import TaskMetrics
from orchestratord.convert.task_output import PACKING
from orchestratord.core.brain import Brain
from orchestratord.core.facts.task import Task, TaskRequest
from orchestratord.core.facts.task_log import TaskLog
from orchestratord.core.state import BrainConfig
from orchestratord.runtime.brain_owner import BrainOwner
from support.manual_clock import ManualClock


class Played:
    """A task of which a test says when its tokens come."""

    def __init__(self) -> None:
        self.clock = ManualClock(100.0)
        self.task = Task(TaskRequest(task_id="task-1", model="m", payload=b"", content_digest="", seed=1), 0.0)
        self.log = TaskLog(PACKING)
        self.log.begin_attempt("a1")
        owner = BrainOwner(Brain(BrainConfig(), str), self.clock)
        self.metrics = TaskMetrics(owner, self.task, self.log, self.clock.now)

    def say(self, tokens: int, apart_s: float = 0.05) -> None:
        for _ in range(tokens):
            self.clock.advance(apart_s)
            if not self.log:
                self.task.first_token_at = self.clock.now
            self.log.append("a1", log_entry_pb2.LogEntry(seq=len(self.log), token_ids=[1], text="x"))

    def rate(self) -> float:
        return self.metrics.take().tokens_per_second


@pytest.fixture
def played() -> Played:
    return Played()


def test_the_wait_before_the_first_token_is_not_in_the_rate(played: Played) -> None:
    played.clock.advance(5)
    played.say(21)
    assert played.rate() == pytest.approx(20.0)


def test_metrics_beside_the_first_token_measure_nothing_and_spoil_nothing(played: Played) -> None:
    played.clock.advance(5)
    played.say(1)
    assert played.rate() == 0
    played.say(20)
    assert played.rate() == pytest.approx(20.0)


def test_the_next_metrics_tell_what_came_since(played: Played) -> None:
    played.say(10)
    played.rate()
    played.say(40, apart_s=0.1)
    assert played.rate() == pytest.approx(10.0)


def test_without_a_token_there_is_no_rate(played: Played) -> None:
    played.clock.advance(3)
    assert played.rate() == 0
