"""Order: nobody starves behind a higher class, and apps that want more than there is get shares by weight."""

from typing import TYPE_CHECKING

from orchestratord.core import effects
from support.simulation.task_rules import TaskRules

if TYPE_CHECKING:
    from support.simulation.world import World


class FairnessRules:
    def __init__(self, world: "World", tasks: TaskRules) -> None:
        self._world = world
        self._tasks = tasks

    def wants(self, effect: effects.Effect) -> None:
        pass
