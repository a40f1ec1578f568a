"""Rules that together leave no place, found before the last of them is set."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from llorch.assignment_mode import Mode
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.fleet import Fleet
from orchestratord.core.facts.targets import Place, devices_of


@dataclass(frozen=True, slots=True)
class Contradiction:
    """The rules that a rule contradicts, and why."""

    others: tuple[Assignment, ...]
    why: str


@dataclass(frozen=True, slots=True)
class _Pair:
    """Modes of two rules that may contradict each other; with `of_one_subject`, only about the same model and app."""

    leaves_a_place: Callable[[Fleet, Assignment, Assignment], bool]
    why_not: str
    of_one_subject: bool = False


def contradiction(fleet: Fleet, rule: Assignment, others: Sequence[Assignment]) -> Contradiction | None:
    """The first there is, by the order of `others`; one with a single rule goes before one with several together."""
    for other in others:
        if why := _between_two(fleet, rule, other, others):
            return Contradiction((other,), why)
    return _of_many(fleet, rule, others)


def _between_two(fleet: Fleet, rule: Assignment, other: Assignment, others: Iterable[Assignment]) -> str | None:
    if rule.model == other.model and 0 < rule.replicas_max != other.replicas_max > 0:
        return "they name different numbers of replicas"
    if not _meet(rule, other) or _is_decided_elsewhere(rule, other, others):
        return None
    for first, second in ((rule, other), (other, rule)):
        pair = _PAIRS.get((first.mode, second.mode))
        if pair is not None:
            return None if _go_together(fleet, pair, first, second) else pair.why_not
    return None


def _go_together(fleet: Fleet, pair: _Pair, first: Assignment, second: Assignment) -> bool:
    is_same_subject = (first.model, first.app) == (second.model, second.app)
    return (pair.of_one_subject and not is_same_subject) or pair.leaves_a_place(fleet, first, second)


def _of_many(fleet: Fleet, rule: Assignment, others: Sequence[Assignment]) -> Contradiction | None:
    """A pin of which several rules forbid a part each."""
    everything = [*others, rule]
    for pin in (one for one in everything if one.mode is Mode.PIN):
        for model, app in _subjects(pin, everything):
            avoids = [
                one
                for one in everything
                if one.mode is Mode.AVOID
                and one.applies_to(model, app)
                and not _is_decided_elsewhere(pin, one, everything)
            ]
            involved = [pin, *avoids]
            if rule in involved and avoids and not _leaves_something(fleet, pin, avoids):
                named = tuple(one for one in involved if one is not rule)
                return Contradiction(named, "together they leave no place")
    return None


def _subjects(pin: Assignment, rules: Iterable[Assignment]) -> Iterator[tuple[str, str]]:
    """Every model and app that the pin is about and that some rule tells apart."""
    models = {pin.model} if pin.model else {"", *(rule.model for rule in rules)}
    apps = {pin.app} if pin.app else {"", *(rule.app for rule in rules)}
    yield from ((model, app) for model in sorted(models) for app in sorted(apps))


def _is_decided_elsewhere(one: Assignment, other: Assignment, rules: Iterable[Assignment]) -> bool:
    """A pin for the model of the app stands in the stead of what is said for the model and for the app."""
    if one.is_specific != other.is_specific:
        return (one if one.is_specific else other).mode is Mode.PIN
    model, app = one.model or other.model, one.app or other.app
    return not one.is_specific and any(
        rule.mode is Mode.PIN and rule.is_specific and rule.applies_to(model, app) for rule in rules
    )


def _meet(one: Assignment, other: Assignment) -> bool:
    """Whether some app that asks for some model is subject to both."""
    return _same_or_any(one.model, other.model) and _same_or_any(one.app, other.app)


def _same_or_any(one: str, other: str) -> bool:
    return not one or not other or one == other


def _share_a_place(fleet: Fleet, one: Assignment, other: Assignment) -> bool:
    return any(
        _compatible(fleet, here, there) if here and there else _may_be_compatible(target, other_target)
        for target, here in zip(one.targets, one.places, strict=True)
        for other_target, there in zip(other.targets, other.places, strict=True)
    )


def _leaves_something(fleet: Fleet, wanted: Assignment, avoids: Sequence[Assignment]) -> bool:
    """Whether the avoided places leave something of those wanted. Of a place not seen yet only its words are known."""
    words = {target for avoid in avoids for target in avoid.targets}
    avoided = [place for avoid in avoids for place in avoid.known_places]
    return any(
        _has_rest(fleet, place, avoided) if place else words.isdisjoint({target, _node_of(target)})
        for target, place in zip(wanted.targets, wanted.places, strict=True)
    )


def _may_be_compatible(one: str, other: str) -> bool:
    """Places that have never been seen: the same node may be the same place."""
    return _node_of(one) == _node_of(other)


def _node_of(target: str) -> str:
    return target.partition("/")[0].strip()


def _compatible(fleet: Fleet, one: Place, other: Place) -> bool:
    """Whether one worker could be at both."""
    if one.node_id != other.node_id:
        return False
    if one.device_ids and other.device_ids:
        return set(one.device_ids) == set(other.device_ids)
    here, there = _devices(fleet, one), _devices(fleet, other)
    if here is None or there is None:
        return True
    if one.device_ids or other.device_ids:
        return here <= there if one.device_ids else there <= here
    return not here.isdisjoint(there)


def _has_rest(fleet: Fleet, place: Place, avoided: Iterable[Place]) -> bool:
    """Devices that are named are meant together: all of them have to be left."""
    here = _devices(fleet, place)
    if here is None:
        return not any(other.node_id == place.node_id and not other.device_ids for other in avoided)
    gone: set[str] = set()
    for other in avoided:
        if other.node_id == place.node_id:
            there = _devices(fleet, other)
            gone |= here if there is None else here & there
    return not gone if place.device_ids else bool(here - gone)


def _devices(fleet: Fleet, place: Place) -> set[str] | None:
    """None if they are not known: a whole node that is not there now."""
    if place.device_ids:
        return set(place.device_ids)
    node = fleet.nodes.get(place.node_id)
    return None if node is None else set(devices_of(node, place))


def _leaves_some(fleet: Fleet, wanted: Assignment, avoid: Assignment) -> bool:
    return _leaves_something(fleet, wanted, [avoid])


_PAIRS: Mapping[tuple[Mode, Mode], _Pair] = MappingProxyType(
    {
        (Mode.PIN, Mode.PIN): _Pair(_share_a_place, "no place satisfies both"),
        (Mode.PIN, Mode.PREFER): _Pair(_share_a_place, "what one prefers, the other excludes", of_one_subject=True),
        (Mode.PREFER, Mode.AVOID): _Pair(_leaves_some, "what one prefers, the other forbids", of_one_subject=True),
        (Mode.PIN, Mode.AVOID): _Pair(_leaves_some, "every place that one names, the other forbids"),
    }
)
"""Rules of any two other modes go together."""
