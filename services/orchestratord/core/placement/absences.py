"""What is away and would do if it were there: the difference between "not now" and "never".

A place counts if no lasting reason leaves it out, and the model would fit there if its node reported, its devices
answered, were not released or drained, and other programs held nothing. A filter that may stop to remove a place, while
the place itself stays, says so by its `absence`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from llorch.assignment_mode import Mode
from orchestratord.core.facts.absence import Absence
from orchestratord.core.facts.contexts import contexts_to_try
from orchestratord.core.facts.decision import NO_PLACE, Largest
from orchestratord.core.facts.fleet import Fleet, Node, Site
from orchestratord.core.facts.model import Model
from orchestratord.core.facts.rules import Lane, Rule, Rules, rules_of, with_target
from orchestratord.core.facts.targets import Place, show, why_missing
from orchestratord.core.placement import filters
from orchestratord.core.placement.candidates import Usable, sites_of_size, sizes_to_try
from orchestratord.core.placement.claims import Claims
from orchestratord.core.placement.filters import Filter
from orchestratord.core.placement.places import in_gib
from orchestratord.core.placement.query import LoadRequest, Query
from orchestratord.core.state import BrainState


@dataclass(frozen=True, slots=True)
class Survey:
    """`away` is what a load of the model waits for, or could wait for, each told once; without any it can never be
    loaded. `largest` is the largest place that no lasting reason leaves out.
    """

    away: tuple[Absence, ...]
    largest: Largest


def survey(state: BrainState, model: Model, lane: Lane, places: tuple[Place, ...] = ()) -> Survey:
    """With as much context as asked for; less only where that would nowhere do, and its owner leaves it open."""
    rules = with_target(rules_of(state.assignments, state.fleet, lane), places)
    unknown = list(_of_unknown_places(state.fleet, rules))
    largest = NO_PLACE
    for context in contexts_to_try(model):
        surveyor = _Surveyor(Query(state, LoadRequest(model, lane, context, only=places), rules))
        known = list(surveyor.of_known_places())
        largest = largest.or_larger(surveyor.largest)
        if known:
            break
    found: dict[str, Absence] = {}
    for absence in (*known, *unknown):
        if absence.soon or absence.what not in found:  # it may be in the way of several places, with others or alone
            found[absence.what] = absence
    return Survey(tuple(found.values()), largest)


class _FilterSet:
    """Filters that could remove anything: those that do so for good, and those that tell what is away."""

    def __init__(self, query: Query, asked: Sequence[Filter]) -> None:
        self._query = query
        matter = [one for one in asked if one.matters(query)]
        self._for_good = [one.removes for one in matter if one.absence is None]
        self._for_now = [(one.removes, one.absence) for one in matter if one.absence is not None]

    def removes(self, site: Site) -> bool:
        return any(removes(self._query, site) for removes in self._for_good)

    def absences(self, site: Site) -> list[Absence]:
        return [absence(self._query, site) for removes, absence in self._for_now if removes(self._query, site)]


@dataclass(slots=True)
class _Here:
    """The devices of a node that no lasting reason leaves out, and what is the matter with the node now."""

    usable: Usable
    away: list[Absence]


class _Surveyor:
    def __init__(self, query: Query) -> None:
        self._query = query
        self._claims = Claims(query)
        self._of_nodes = _FilterSet(query, filters.OF_NODES)
        self._of_devices = _FilterSet(query, filters.OF_DEVICES)
        self._of_sets = _FilterSet(query, filters.OF_SETS)
        self.largest = NO_PLACE

    def of_known_places(self) -> Iterator[Absence]:
        nodes = [here for node in self._query.state.fleet.nodes.values() if (here := self._look_at(node)) is not None]
        for size in sizes_to_try(self._query, [here.usable for here in nodes]):
            for here in nodes:
                for site in sites_of_size(self._query, here.usable, size):
                    if not self._of_sets.removes(site) and self._would_fit(site):
                        yield from self._why_not(here, site)

    def _look_at(self, node: Node) -> _Here | None:
        whole = Site(node, (), ())
        if self._of_nodes.removes(whole):
            return None
        sites = (Site(node, (device,), (device.device_id,)) for device in node.devices.values())
        left = [site for site in sites if not self._of_devices.removes(site)]
        return _Here(Usable(node, left), self._of_nodes.absences(whole)) if left else None

    def _would_fit(self, site: Site) -> bool:
        """As much as the devices have for workers when no other program holds anything."""
        whole = tuple(device.empty_mib for device in site.devices)
        self.largest = self.largest.or_larger(Largest(sum(whole), len(whole)))
        return all(map(int.__le__, self._claimed(site), whole))

    def _claimed(self, site: Site) -> tuple[int, ...]:
        if len(site.devices) == 1:
            return self._claims.on(site.devices)
        said = self._query.model.spec.split_shares
        wholes = tuple(device.empty_mib for device in site.devices)
        return self._claims.on(site.devices, said if len(said) == len(wholes) else in_gib(wholes))

    def _why_not(self, here: _Here, site: Site) -> Iterator[Absence]:
        found = list(here.away)
        for device in site.devices:
            found += self._of_devices.absences(Site(site.node, (device,), (device.device_id,)))
        away = found or list(self._held_by_others(site))
        is_soon = all(absence.soon for absence in away)  # the place is there again when all is
        yield from away if is_soon else (replace(absence, soon=False) for absence in away)

    def _held_by_others(self, site: Site) -> Iterator[Absence]:
        """All is there, but other programs hold memory that the model needs."""
        for device, claim in zip(site.devices, self._claimed(site), strict=True):
            if claim > self._query.state.ledger.capacity((site.node.node_id, device.device_id)):
                why = f"is full: other programs hold {device.others_mib} MiB, and the model needs {claim} MiB"
                yield Absence(f"{device.name} of {site.node.node_id}", f"{why} of {device.empty_mib}")


def _of_unknown_places(fleet: Fleet, rules: Rules) -> Iterator[Absence]:
    """Places that pins name and that no node has now: a host or a card that is not there yet, or not any more."""
    pins = rules.of(Mode.PIN)
    for pin in pins:
        for target, place in _named(fleet, pin):
            if place is None or (not _is_known(fleet, place) and _is_left_by_others(rules, pins, pin, place)):
                yield _missing(fleet, target, place)


def _missing(fleet: Fleet, target: str, place: Place | None) -> Absence:
    if place == Place(target):
        return Absence(f"node '{target}'", why_missing(fleet, target, place).partition(f"'{target}' ")[2], by_hand=True)
    name = target if place is None else show(fleet, place)
    return Absence(name, f"is not there: {why_missing(fleet, target, place)}", by_hand=True)


def _named(fleet: Fleet, pin: Rule) -> Iterator[tuple[str, Place | None]]:
    """The places of a rule or a wish, as they were written and as they were understood."""
    if pin.assignment is not None:
        return zip(pin.assignment.targets, pin.assignment.places, strict=True)
    return ((show(fleet, place), place) for place in pin.places)


def _is_known(fleet: Fleet, place: Place) -> bool:
    node = fleet.nodes.get(place.node_id)
    if node is None:
        return False
    return place.pool_id in node.pools if place.pool_id else node.devices.keys() >= set(place.device_ids)


def _is_left_by_others(rules: Rules, pins: Sequence[Rule], pin: Rule, place: Place) -> bool:
    """As far as that can be told of a place that is not there: other rules that speak of its node could still hold."""
    if place.device_ids and rules.excluded_by_mask(place.device_ids):
        return False
    if any(place in avoided.places for avoided in rules.of(Mode.AVOID)):
        return False
    others = (other for other in pins if other is not pin)
    return all(any(each.node_id == place.node_id for each in other.places) for other in others)
