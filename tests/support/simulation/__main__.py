"""Replay seeds and say what was violated: `python -m support.simulation 17`, `… 0-2000`.

With `--tell WORD …` every event and effect that contains one of the words is printed; without words, all.
"""

import argparse
import sys
import time

from orchestratord.core import events
from orchestratord.core.brain import Handled
from orchestratord.simulation.violation import Violation
from support.simulation.plan import draw
from support.simulation.world import World


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", help="one seed, or FROM-TO without TO")
    parser.add_argument("--tell", nargs="*", metavar="WORD", help="print what the brain hears and wants")
    parser.add_argument("--digest", action="store_true", help="print a digest of each run, and nothing else")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    seeds = range(int(first), int(last) if last else int(first) + 1)
    begin, told, violations = time.process_time(), 0, 0
    for seed in seeds:
        world = World(draw(seed), trace=arguments.digest)
        if arguments.tell is not None:
            tell(world, arguments.tell)
        try:
            world.run()
        except Violation as error:
            violations += 1
            print(error)
        told += world.events
        if arguments.digest:
            print(seed, world.digest())
    if arguments.digest:
        return
    took = time.process_time() - begin
    print(f"{len(seeds)} seeds, {told} events, {took:.1f} s of processor time, {violations} violations")
    sys.exit(violations > 0)


def tell(world: World, words: list[str]) -> None:
    """Print what passes between the brain and the world."""
    handle = world.brain.handle

    def handle_and_tell(event: events.Event, now: float) -> Handled:
        handled = handle(event, now)
        for line in (f"{now:9.3f} {event}", *(f"{'→':>9} {effect}" for effect in handled.effects)):
            if not words or any(word in line for word in words):
                print(line)
        return handled

    world.brain.handle = handle_and_tell  # type: ignore[method-assign]  # for this one object


if __name__ == "__main__":
    main()
