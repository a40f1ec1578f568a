"""Places that can be had now, at once or after an eviction.

The workers to evict are searched for in the order of the places' costs without that, and only as long as a place can
still win.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestratord.core.facts.decision import total_ms
from orchestratord.core.placement import eviction
from orchestratord.core.placement.eviction import EVICT_MS, NO_EVICTION, Eviction
from orchestratord.core.placement.places import Fit, Order
from orchestratord.core.state import BrainState

EVICTIONS_COMPARED = 16
"""In a fleet where nothing is free, so many places that could be made free: those that lack least."""

_NOTHING = (0, math.inf)


@dataclass(slots=True)
class Possible:
    """A place, and the workers that have to leave for it."""

    place: Fit
    eviction: Eviction
    order: Order


def possible_places(state: BrainState, places: Sequence[Fit]) -> list[Possible]:
    """In no order. Of those that cost an eviction, only such as could still be the best."""
    possible = [Possible(place, NO_EVICTION, place.order()) for place in places if place.fits_now]
    best = min((one.order[:2] for one in possible), default=_NOTHING)
    occupied = [
        place for place in places if not place.fits_now and (-place.preferred, place.cost_ms + EVICT_MS) <= best
    ]
    return possible + _with_evictions(state, occupied, best)


def _with_evictions(state: BrainState, occupied: list[Fit], best: tuple[int, float]) -> list[Possible]:
    found: list[Possible] = []
    for place in sorted(occupied, key=Fit.order):
        if len(found) >= EVICTIONS_COMPARED or place.order(EVICT_MS)[:2] > best:
            break
        chosen = eviction.cheapest(state, place.claims)
        if chosen is not None:
            found.append(Possible(place, chosen, place.order(total_ms(chosen.terms))))
            best = min(best, found[-1].order[:2])
    return found
