"""Places that can be had now, at once or after an eviction.

The workers to evict are searched for in the order of the places' costs without that, and only as long as a place can
still win.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestratord.core.facts.decision import total_ms
from orchestratord.core.placement import eviction
from orchestratord.core.placement.eviction import EVICT_MS, Eviction
from orchestratord.core.placement.idle_memory import IdleMemory
from orchestratord.core.placement.places import LOOKED_AT_CLOSELY, Fit, Order
from orchestratord.core.placement.query import Query

EVICTIONS_COMPARED = 16
"""In a fleet where nothing is free, so many places that could be made free: those that lack least."""

_NOTHING = (0, math.inf)


@dataclass(slots=True)
class Possible:
    """A place, and the workers that have to leave for it; None where the memory is free."""

    place: Fit
    eviction: Eviction | None
    order: Order


def possible_places(query: Query, places: Sequence[Fit], idle: IdleMemory) -> list[Possible]:
    """In no order. Of those that cost an eviction, only such as could still be the best."""
    possible = [Possible(place, None, place.order()) for place in places if place.fits_now]
    best = min((one.order[:2] for one in possible), default=_NOTHING)
    occupied = [place for place in places if not place.fits_now and place.order(EVICT_MS)[:2] <= best]
    return possible + _with_evictions(query, occupied, best, idle)


def idle_ones(query: Query, place: Fit) -> Eviction | None:
    """The workers to evict for the place, of those that have nothing to do."""
    state, request = query.state, query.request
    return eviction.cheapest(
        state,
        place.claims,
        may_go=lambda worker: eviction.may_leave(state, worker, request),
        cost_ms=lambda worker: eviction.regret_ms(state, worker),
    )


def _with_evictions(query: Query, occupied: list[Fit], best: tuple[int, float], idle: IdleMemory) -> list[Possible]:
    found: list[Possible] = []
    failed = 0
    heapq.heapify(occupied)
    while occupied and len(found) < EVICTIONS_COMPARED:
        place = heapq.heappop(occupied)
        if place.order(EVICT_MS)[:2] > best:
            break
        chosen = idle_ones(query, place)
        if chosen is not None:
            found.append(Possible(place, chosen, place.order(total_ms(chosen.terms))))
            best = min(best, found[-1].order[:2])
            continue
        failed += 1
        if failed == LOOKED_AT_CLOSELY:
            occupied = [place for place in occupied if idle.is_enough(place.lacking)]
            heapq.heapify(occupied)
    return found
