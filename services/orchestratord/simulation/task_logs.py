"""What readers see of the tasks' output: the daemon's own logs, with entries that stand for a part of an answer."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestratord.core import effects, events
from orchestratord.core.facts.task import TaskEnd, TaskState
from orchestratord.core.facts.task_log import Packing, TaskLog
from orchestratord.simulation.violation import Violation

if TYPE_CHECKING:
    from orchestratord.simulation.world import World

PARTS = 6
"""Of each answer."""


@dataclass(frozen=True, slots=True)
class AnswerPart:
    seq: int
    tokens: int
    choice: int = 0

    @property
    def token_ids(self) -> Sequence[int]:
        return array("I", [0]) * self.tokens


_PACKING: Packing[AnswerPart] = Packing(
    pack=lambda parts: b"".join(bytes([part.seq]) for part in parts),
    unpack=lambda packed: [AnswerPart(seq, 0) for seq in packed],
    size=lambda _: 1,
    digest=lambda part, before: before + part.seq,
)


class TaskLogs:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._logs: dict[str, TaskLog[AnswerPart]] = {}
        self._written_by: dict[str, list[str]] = {}
        """The attempt that each part of a task's output came of."""
        self._begins_at: dict[str, int] = {}
        """By attempt."""
        self._watched_from: dict[str, int] = {}

    def parts_of(self, task_id: str) -> int:
        return len(self._logs[task_id])

    def open(self, task_id: str) -> None:
        self._logs[task_id] = TaskLog(_PACKING)
        self._written_by[task_id] = []

    def begin(self, effect: effects.StartRun) -> None:
        self._begins_at[effect.attempt_id] = self.parts_of(effect.request.task_id)
        self._logs[effect.request.task_id].begin_attempt(effect.attempt_id)

    def end_attempt(self, attempt_id: str) -> None:
        for log in self._logs.values():
            log.end_attempt(attempt_id)

    def watch(self, effect: effects.WatchOutput) -> None:
        self._watched_from[effect.task_id] = self.parts_of(effect.task_id) + effect.entries

    def append(self, task_id: str, attempt_id: str, part: AnswerPart) -> list[events.Event]:
        """What the link to a worker tells the brain, as it takes a frame in."""
        log = self._logs.get(task_id)
        if log is None:
            return []
        writers = log.writers
        if not log.append(attempt_id, part):
            return []
        told: list[events.Event] = []
        if len(writers) > 1:
            told.append(events.AttemptDecided(attempt_id))
        written_by = self._written_by[task_id]
        self._check_that_it_follows(task_id, attempt_id)
        written_by.append(attempt_id)
        if written_by[-2:-1] != [attempt_id]:
            told.append(events.AttemptFirstToken(attempt_id))
        if len(log) == self._watched_from.get(task_id):
            told.append(events.OutputWentOn(task_id))
        return told

    def _check_that_it_follows(self, task_id: str, attempt_id: str) -> None:
        """An attempt goes on from what there was when it began, and from what it has brought itself since."""
        others = set(self._written_by[task_id][self._begins_at[attempt_id] :]) - {attempt_id}
        if others:
            raise Violation(self._world, f"a tail of {attempt_id} is spliced to {task_id}, on output of {others}")

    def count_lost(self, effect: effects.CountLostOutput) -> int:
        log = self._logs[effect.task_id]
        tokens = log.tokens_of_attempt(effect.attempt_id)
        log.end_attempt(effect.attempt_id)
        return tokens

    def ended(self, effect: effects.AppendTerminal) -> None:
        """An answer is whole: each part of it is there once."""
        log, task = self._logs[effect.task_id], self._world.brain.state.tasks.get(effect.task_id)
        is_answer = isinstance(effect.terminal, TaskEnd) and task is not None and task.state is TaskState.COMPLETED
        if is_answer and (len(log), log.tokens) != (PARTS, self._world.tokens_of(effect.task_id)[1]):
            raise Violation(
                self._world, f"{effect.task_id} is answered with {len(log)} of {PARTS} parts, {log.tokens} tokens"
            )
        log.seal()

    def forget(self, task_id: str) -> None:
        del self._logs[task_id]
        for attempt_id in self._written_by.pop(task_id):
            self._begins_at.pop(attempt_id, None)
        self._watched_from.pop(task_id, None)


def tokens_in_part(seq: int, tokens: int) -> int:
    """The parts of an answer of so many tokens, as equal as may be."""
    return tokens * (seq + 1) // PARTS - tokens * seq // PARTS
