"""An invariant does not hold."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestratord.simulation.world import World


class Violation(AssertionError):
    """Says what, when, and how to see it again."""

    def __init__(self, world: "World", what: str) -> None:
        seed, now, number = world.plan.seed, world.schedule.now, world.events
        super().__init__(f"seed {seed}, at {now:.3f} s, event {number}: {what}")
