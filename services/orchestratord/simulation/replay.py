"""A day in a simulated world, from its morning until all work is done."""

from dataclasses import replace
from functools import partial

from orchestratord.core.state import BrainConfig
from orchestratord.simulation.clients import Clients
from orchestratord.simulation.day import Day
from orchestratord.simulation.outcome import DayOutcome, DayTally
from orchestratord.simulation.world import World

HOSTS_ARE_THERE_S = 1.0
SETTLES_S = 2.0
"""Until rules are set and models that they keep loaded are on their way."""

LONGEST_S = 6 * 3600.0
"""After the day, for what still waits and runs."""


def replay(day: Day, config: BrainConfig) -> DayOutcome:
    """Raises LlorchError where the orchestrator refuses a model, an app or a rule."""
    world = World(day.plan, config, day.settings)
    clients = Clients(world)
    tally = world.watch = DayTally(world, clients)
    world.begin()
    world.schedule.run_until(HOSTS_ARE_THERE_S)
    world.store.is_instant = True
    for call in day.calls:
        world.ask(call)
    world.store.is_instant = False
    for arrival in day.work:
        coming = replace(arrival, at=SETTLES_S + arrival.at)
        world.schedule.at(coming.at, partial(clients.come, coming))
    ends_at = SETTLES_S + day.lasts_s
    world.schedule.run_until(ends_at)
    state = world.brain.state
    while (len(state.queue) or state.running or clients.away) and world.schedule.now < ends_at + LONGEST_S:
        world.schedule.run_until(world.schedule.now + 1.0)
    return tally.outcome()
