"""What is away and would do if it were there: the difference between "not now" and "never".

A place counts if no lasting reason leaves it out, and the model would fit there if its node reported, its devices
answered, were not released or drained, and other programs held nothing. A filter that may stop to remove a place, while
the place itself stays, says so by its `absence`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from llorch.assignment_mode import Mode
from orchestratord.core.facts.absence import Absence
from orchestratord.core.facts.contexts import contexts_to_try
from orchestratord.core.facts.fleet import Device, Fleet, Node
from orchestratord.core.facts.model import Model
from orchestratord.core.facts.rules import Lane, Rule, Rules, rules_of, with_target
from orchestratord.core.facts.targets import Place, show, why_missing
from orchestratord.core.placement import filters
from orchestratord.core.placement.candidates import Usable, sites_of_size, sizes_to_try
from orchestratord.core.placement.claims import Claims
from orchestratord.core.placement.filters import Filter
from orchestratord.core.placement.places import in_gib
from orchestratord.core.placement.query import LoadRequest, Query, Site
from orchestratord.core.state import BrainState


def absences(state: BrainState, model: Model, lane: Lane, places: tuple[Place, ...] = ()) -> list[Absence]:
    """Those that a load of the model waits for, or could wait for, each told once. Empty: it can never be loaded there.

    With the least context that its owner leaves open.
    """
    context = min(contexts_to_try(model))
    rules = with_target(rules_of(state.assignments, state.fleet, lane), places)
    query = Query(state, LoadRequest(model, lane, context, only=places), rules)
    found = [*_of_known_places(query), *_of_unknown_places(state.fleet, rules)]
    return list({absence.what: absence for absence in found}.values())


@dataclass(slots=True)
class _Away:
    """The devices of a node that no lasting reason leaves out, and what is the matter with each now."""

    here: Usable
    of_node: list[Absence]
    of_device: dict[str, list[Absence]] = field(default_factory=dict)

    def of(self, site: Site) -> list[Absence]:
        return [*self.of_node, *(absence for device_id in site.device_ids for absence in self.of_device[device_id])]


def _of_known_places(query: Query) -> Iterator[Absence]:
    claims = Claims(query)
    nodes = [away for node in query.state.fleet.nodes.values() if (away := _looked_at(query, node)) is not None]
    for size in sizes_to_try(query, [away.here for away in nodes]):
        for away in nodes:
            for site in sites_of_size(query, away.here, size):
                if _removed_for_good(query, filters.OF_SETS, site) or not _would_fit(query, claims, site):
                    continue
                yield from away.of(site) or _held_by_others(query, claims, site)


def _looked_at(query: Query, node: Node) -> _Away | None:
    whole = Site(node, (), ())
    if _removed_for_good(query, filters.OF_NODES, whole):
        return None
    sites = [Site(node, (device,), (device.device_id,)) for device in node.devices.values()]
    left = [site for site in sites if not _removed_for_good(query, filters.OF_DEVICES, site)]
    away = _Away(Usable(node, left), _now_absent(query, filters.OF_NODES, whole))
    for site in left:
        away.of_device[site.device_ids[0]] = _now_absent(query, filters.OF_DEVICES, site)
    return away if left else None


def _removed_for_good(query: Query, asked: Sequence[Filter], site: Site) -> bool:
    return any(one.absence is None and one.matters(query) and one.removes(query, site) for one in asked)


def _now_absent(query: Query, asked: Sequence[Filter], site: Site) -> list[Absence]:
    return [
        one.absence(query, site)
        for one in asked
        if one.absence is not None and one.matters(query) and one.removes(query, site)
    ]


def _would_fit(query: Query, claims: Claims, site: Site) -> bool:
    """As much as the devices have for workers when no other program holds anything."""
    whole = tuple(_whole_mib(device) for device in site.devices)
    return all(map(int.__le__, _claimed(query, claims, site), whole))


def _claimed(query: Query, claims: Claims, site: Site) -> tuple[int, ...]:
    if len(site.devices) == 1:
        return claims.on(site.devices)
    said = query.model.spec.split_shares
    shares = said if len(said) == len(site.devices) else in_gib(tuple(_whole_mib(device) for device in site.devices))
    return claims.on(site.devices, shares)


def _held_by_others(query: Query, claims: Claims, site: Site) -> Iterator[Absence]:
    """All is there, but other programs hold memory that the model needs."""
    for device, claim in zip(site.devices, _claimed(query, claims, site), strict=True):
        if claim > query.state.ledger.capacity((site.node.node_id, device.device_id)):
            why = f"is full: other programs hold {device.others_mib} MiB, and the model needs {claim} MiB"
            yield Absence(f"{device.name} of {site.node.node_id}", f"{why} of {_whole_mib(device)}")


def _whole_mib(device: Device) -> int:
    return max(0, device.total_mib - device.reserve_mib)


def _of_unknown_places(fleet: Fleet, rules: Rules) -> Iterator[Absence]:
    """Places that pins name and that no node has now: a host or a card that is not there yet, or not any more."""
    pins = rules.of(Mode.PIN)
    for pin in pins:
        for target, place in _named(fleet, pin):
            if place is None or (not _is_known(fleet, place) and _is_left_by_others(rules, pins, pin, place)):
                name = target if place is None else show(fleet, place)
                yield Absence(name, f"is not there: {why_missing(fleet, target, place)}")


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
