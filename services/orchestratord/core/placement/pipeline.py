"""Where a model goes: candidates → filters → cost → one total order. Reads the brain's state and changes nothing.

Of a place that was removed nothing is kept but a count, unless details are asked for.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
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
from orchestratord.core.placement.filters import Filter
from orchestratord.core.placement.places import Claimed, Fit, Surveyor
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
    only_cost_decides = not (details or query.rules.prefers or of_sets)
    surveyor = Surveyor(query, Claims(query), Costs(query), CANDIDATES_KEPT if only_cost_decides else None)
    usable = list(_usable(query, tally))
    possible: list[Possible] = []
    blocked: list[Claimed] = []
    for size in sizes_to_try(query, usable):
        places = [place for here in usable for place in _left(surveyor, tally, of_sets, here, size)]
        possible = possible_places(query, places)
        if possible:
            if details:
                tally.tell_full(_full(query, places))
            break
        occupied = [*places, *surveyor.taken]
        tally.lack_room([place.site for place in occupied])
        large_enough = (place for place in occupied if eviction.fits_when_all_left(state, place.claims))
        blocked = list(islice(large_enough, CANDIDATES_KEPT))
        if blocked:
            break
        surveyor.taken.clear()
    by_order = attrgetter("order")
    best = sorted(possible, key=by_order) if details else heapq.nsmallest(CANDIDATES_KEPT, possible, key=by_order)
    return Decision(
        model=request.model.name,
        ranked=tuple(_candidate(surveyor, one) for one in best),
        removed=tally.counts,
        details=tuple(tally.details),
        considered=tally.considered,
        waits=bool(blocked) and not possible,
        blocked=() if possible else tuple(_blocked(surveyor, place) for place in blocked),
        pinned=bool(query.rules.of(Mode.PIN)),
        fallback_used=query.rules.fallback_used,
        largest=tally.largest,
        excluded_by=() if possible or blocked else _excluded_by(query, tally),
    )


def may_ever_fit(state: BrainState, request: LoadRequest) -> bool:
    """Whether the model could be loaded now or later: by the first place that would do, so without weighing any."""
    query = Query(state, request, with_target(rules_of(state.assignments, state.fleet, request.lane), request.only))
    tally = Tally(query, with_details=False)
    surveyor = Surveyor(query, Claims(query), Costs(query))
    of_sets = [one for one in filters.OF_SETS if one.matters(query)]

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
        sites = [Site(node, (device,), (device.device_id,)) for device in node.devices.values()]
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


def _blocked(surveyor: Surveyor, place: Claimed) -> Candidate:
    """With what it would cost without an eviction."""
    site, ledger = place.site, surveyor.query.state.ledger
    capacity_mib, left_mib = 0, -sum(place.claims_mib)
    for key in place.claims:
        available, capacity = ledger.room(key)
        capacity_mib, left_mib = capacity_mib + capacity, left_mib + available
    return Candidate(
        site.node.node_id,
        site.device_ids,
        site.where,
        claims_mib=place.claims_mib,
        tensor_split=place.shares,
        terms=surveyor.costs.terms(site, capacity_mib, left_mib),
    )


def _candidate(surveyor: Surveyor, one: Possible) -> Candidate:
    place = one.place
    return Candidate(
        node_id=place.site.node.node_id,
        device_ids=place.site.device_ids,
        where=place.site.where,
        claims_mib=place.claims_mib,
        tensor_split=place.shares,
        evicted=evicted_by(surveyor.query.state, one.eviction.worker_ids if one.eviction else ()),
        terms=(*surveyor.terms(place), *(one.eviction.terms if one.eviction else ())),
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
