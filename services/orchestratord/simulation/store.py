"""The store: it takes its time, and now and then it can't write."""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from orchestratord.core import effects, events
from orchestratord.core.facts.drains import Drain
from orchestratord.core.facts.records import Record, RecordChange

if TYPE_CHECKING:
    from orchestratord.simulation.world import World

Place = tuple[type, str]
"""Kind and key of a record."""

LONGEST_WRITE_S = (0.0, 0.005, 0.05, 0.8)


class SimulatedStore:
    """Draws apart from the rest of the world, so that a slow disk changes nothing else."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.records: dict[Place, Record] = {}
        """What callers have changed, and how drains went on; what the brain learns by itself is not looked at."""
        self.is_instant = True
        """While the world is set up."""
        self.writing: effects.PersistChange | None = None
        self._random = Random(f"store of {world.plan.seed}")  # noqa: S311  # a schedule, not a secret
        self._longest_s = self._random.choice(LONGEST_WRITE_S)

    def save_task(self, effect: effects.PersistTask) -> None:
        task_id = effect.request.task_id
        kept, not_kept = events.TaskKept(task_id), events.TaskNotKept(task_id, "the disk is full")
        self._answer(lambda: self.world.tell(not_kept if self._fails() else kept))

    def save_change(self, effect: effects.PersistChange) -> None:
        self.writing = effect
        self._answer(lambda: self._written(effect))

    def save_record(self, effect: effects.PersistRecord) -> None:
        """Of what the brain does by itself, the ends of drains are looked at. They are written at once."""
        if isinstance(effect.after or effect.before, Drain):
            self._keep(RecordChange(effect.before, effect.after))

    def _written(self, effect: effects.PersistChange) -> None:
        """What was written is there before the brain hears of it."""
        self.writing = None
        if self._fails():
            self.world.tell(events.ChangeNotKept())
            return
        for change in effect.changes:
            self._keep(change)
        self.world.watch.written(effect.changes)
        self.world.tell(events.ChangeKept())

    def _keep(self, change: RecordChange) -> None:
        place = (type(change.record), change.record.record_key)
        if change.after is None:
            self.records.pop(place, None)
        else:
            self.records[place] = change.after

    def _answer(self, answer: Callable[[], object]) -> None:
        if self.is_instant:
            answer()
        else:
            self.world.schedule.after(self._random.uniform(0, self._longest_s), answer)

    def _fails(self) -> bool:
        if self.is_instant or not self.world.is_disturbed:
            return False
        return self._random.random() < self.world.plan.faults.writes_fail
