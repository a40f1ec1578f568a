"""Where a model goes: candidates → filters → cost → one total order. Reads the brain's state and changes nothing.

Of a place that was removed nothing is kept but a count, unless details are asked for.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import attrgetter

from llorch.assignment_mode import Mode
from llorch.split_mode import SplitMode
from orchestratord.core.facts.decision import Candidate, Decision, Evicted
from orchestratord.core.facts.fleet import Site
from orchestratord.core.facts.rules import rules_of, with_target
from orchestratord.core.placement import eviction, filters
from orchestratord.core.placement.candidates import Usable, sizes_to_try
from orchestratord.core.placement.claims import Claims
from orchestratord.core.placement.cost import Costs
from orchestratord.core.placement.eviction import Eviction
from orchestratord.core.placement.filters import Filter
from orchestratord.core.placement.places import Fit, Surveyor
from orchestratord.core.placement.possible import Possible, idle_ones, possible_places
from orchestratord.core.placement.query import LoadRequest, Query
from orchestratord.core.placement.tally import Tally
from orchestratord.core.state import BrainState

CANDIDATES_KEPT = 8


def place_load(state: BrainState, request: LoadRequest, *, details: bool = False) -> Decision:
    """Where the model would be loaded now: on as few devices as will do, there where it costs least.

    It waits for one device rather than take two, as long as the workers on that one may leave some time.
    """
    query = Query(state, request, with_target(rules_of(state.assignments, state.fleet, request.lane), request.only))
    tally = Tally(query, details)
    of_sets = [one for one in filters.OF_SETS if one.matters(query)]
    only_counts = not (details or of_sets)
    wanted = CANDIDATES_KEPT if only_counts and not query.rules.prefers else None
    surveyor = Surveyor(query, Claims(query), Costs(query), only_counts, wanted)
    usable = list(_usable(query, tally))
    possible: list[Possible] = []
    blocked: list[Fit] = []
    for size in sizes_to_try(query, usable):
        surveyor.begin_size()
        places = [place for here in usable for place in _left(surveyor, tally, of_sets, here, size)]
        possible = possible_places(query, places, surveyor.idle)
        if possible:
            if details:
                tally.tell_full(_full(query, places))
            break
        blocked = _blocked(surveyor, tally, places, size)
        if blocked:
            break
    tally.count_too_small(surveyor.too_small, surveyor.largest)
    by_order = attrgetter("order")
    best = sorted(possible, key=by_order) if details else heapq.nsmallest(CANDIDATES_KEPT, possible, key=by_order)
    return Decision(
        model=request.model.name,
        ranked=tuple(_candidate(surveyor, one.place, one.eviction) for one in best),
        removed=tally.counts,
        details=tuple(tally.details),
        considered=tally.considered,
        waits=bool(blocked),
        blocked=tuple(_candidate(surveyor, place) for place in blocked),
        pinned=bool(query.rules.of(Mode.PIN)),
        fallback_used=query.rules.fallback_used,
        largest=tally.largest,
        excluded_by=() if possible or blocked else _excluded_by(query, tally),
    )


def may_ever_fit(state: BrainState, request: LoadRequest) -> bool:
    """Whether the model could be loaded now or later: by the first place that would do, so without weighing any."""
    query = Query(state, request, with_target(rules_of(state.assignments, state.fleet, request.lane), request.only))
    tally = Tally(query, with_details=False)
    of_sets = [one for one in filters.OF_SETS if one.matters(query)]
    surveyor = Surveyor(query, Claims(query), Costs(query), only_counts=not of_sets)

    def has_room(here: Usable, size: int) -> bool:
        places = _left(surveyor, tally, of_sets, here, size)
        return any(place.fits_now or eviction.fits_when_all_left(state, place.claims) for place in places)

    usable = []
    for here in _usable(query, tally):
        if request.model.split is not SplitMode.LAYER and has_room(here, 1):
            return True
        usable.append(here)
    return any(has_room(here, size) for size in sizes_to_try(query, usable) if size > 1 for here in usable)


def _excluded_by(query: Query, tally: Tally) -> tuple[str, ...]:
    """The rules, where they and not the devices are why nothing is left."""
    by_rules = tally.counts.keys() & {one.name for one in filters.OF_RULES}
    return tuple(query.rules.labels(query.state.fleet)) if by_rules else ()


def _usable(query: Query, tally: Tally) -> Iterator[Usable]:
    """Nodes and devices that the filters leave."""
    of_nodes = [one for one in filters.OF_NODES if one.matters(query)]
    of_devices = [one for one in filters.OF_DEVICES if one.matters(query)]
    for node in query.state.fleet.nodes.values():
        sites = node.sites()
        tally.considered += len(sites)
        if tally.passes(of_nodes, Site(node, (), ()), sites):
            left = tally.left_of(of_devices, sites)
            if left:
                yield Usable(node, left)


def _left(surveyor: Surveyor, tally: Tally, of_sets: list[Filter], here: Usable, size: int) -> Iterator[Fit]:
    """Places that the rules leave, and that are large enough when empty."""
    for place in surveyor.places(here, size):
        if of_sets and not tally.passes(of_sets, place.site, (place.site,)):
            continue
        if place.fits_when_empty:
            yield place
        else:
            tally.too_small(place.site, place.claims_mib, place.capacity_mib)


def _full(query: Query, places: Sequence[Fit]) -> list[Site]:
    """Places that no eviction would make free now."""
    return [place.site for place in places if not place.fits_now and idle_ones(query, place) is None]


def _blocked(surveyor: Surveyor, tally: Tally, places: Sequence[Fit], size: int) -> list[Fit]:
    """Some of the places where it would fit if all workers left that may ever have to. All lack room now."""
    tally.lack_room([place.site for place in places], surveyor.count_taken(size))
    occupied = chain(places, surveyor.taken(size))
    fits = (place for place in occupied if eviction.fits_when_all_left(surveyor.query.state, place.claims))
    return list(islice(fits, CANDIDATES_KEPT))


def _candidate(surveyor: Surveyor, place: Fit, evicted: Eviction | None = None) -> Candidate:
    """With what it costs, and the wait for those that have to leave, if any."""
    return Candidate(
        node_id=place.node_id,
        device_ids=place.device_ids,
        where=place.site.where,
        claims_mib=place.claims_mib,
        tensor_split=place.shares,
        evicted=evicted_by(surveyor.query.state, evicted.worker_ids if evicted else ()),
        terms=(*surveyor.terms(place), *(evicted.terms if evicted else ())),
    )


def evicted_by(state: BrainState, worker_ids: Iterable[str]) -> tuple[Evicted, ...]:
    return tuple(_evicted(state, worker_id) for worker_id in worker_ids)


def _evicted(state: BrainState, worker_id: str) -> Evicted:
    worker = state.fleet.workers[worker_id]
    keys = ((worker.node_id, device_id) for device_id in worker.spec.device_ids)
    return Evicted(
        worker_id=worker_id,
        model=worker.spec.model,
        idle_s=state.now - worker.last_used_at,
        mib=sum(state.ledger.held_by(worker_id, key) for key in keys),
    )
