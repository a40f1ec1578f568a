"""What people say about where a task may run, put together: assignments, and the wishes of the request itself."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from orchestratord.core.facts.assignments import Assignment, Assignments, Mode, describe
from orchestratord.core.facts.fleet import Fleet, Node, NodeState
from orchestratord.core.facts.targets import Place, devices_of, show


class OverridePolicy(StrEnum):
    """What a request may wish about its place: nothing, what the assignments leave open, or anything."""

    NONE = "none"
    WITHIN = "within"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What one request says about its place, in its own words: targets as people write them.

    `device_mask` are the ids of devices that may be used at all; none = all.
    """

    pin: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    device_mask: tuple[str, ...] = ()
    fallback: bool | None = None


@dataclass(frozen=True, slots=True)
class Overrides:
    """Wishes of one request, once it is admitted. `above_rules`: pins and avoids of assignments do not bind it."""

    pin: tuple[Place, ...] = ()
    prefer: tuple[Place, ...] = ()
    avoid: tuple[Place, ...] = ()
    device_mask: tuple[str, ...] = ()
    fallback: bool | None = None
    above_rules: bool = False

    def __bool__(self) -> bool:
        return self != NO_OVERRIDES


NO_OVERRIDES = Overrides()


@dataclass(frozen=True, slots=True)
class Lane:
    """All of a task that decides where it may run. Tasks of one lane may stand in for each other.

    `app` is empty unless a rule names the app.
    """

    model: str
    app: str = ""
    overrides: Overrides = NO_OVERRIDES


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, and the places that it is about. `assignment` is None for a wish of the request or a target asked for,
    which `words` tell.
    """

    places: tuple[Place, ...]
    assignment: Assignment | None = None
    words: str = ""
    fallback: bool = False

    def label(self, fleet: Fleet) -> str:
        """For people, when they ask."""
        if self.assignment is not None:
            return f"rule '{describe(fleet, self.assignment)}'"
        return f"{self.words} {' or '.join(show(fleet, place) for place in self.places)}"


@dataclass(frozen=True, slots=True)
class Rules:
    """All that hold for a lane. A worker has to satisfy every pin, and to be at none of the avoided places."""

    pins: tuple[Rule, ...] = ()
    avoids: tuple[Rule, ...] = ()
    prefers: tuple[Rule, ...] = ()
    device_mask: frozenset[str] = frozenset()
    fallback_used: bool = False

    def excluded_by_pin(self, node: Node, device_ids: tuple[str, ...]) -> Rule | None:
        """The first pin that a worker on these devices would not satisfy."""
        for rule in self.pins:
            if not any(place.covers(node, device_ids) for place in rule.places):
                return rule
        return None

    def excluded_by_avoid(self, node: Node, device_ids: tuple[str, ...]) -> Rule | None:
        for rule in self.avoids:
            if any(place.touches(node, device_ids) for place in rule.places):
                return rule
        return None

    def excluded_by_mask(self, device_ids: Iterable[str]) -> bool:
        return bool(self.device_mask) and not self.device_mask.issuperset(device_ids)

    def admits(self, node: Node, device_ids: tuple[str, ...]) -> bool:
        return (
            self.excluded_by_pin(node, device_ids) is None
            and self.excluded_by_avoid(node, device_ids) is None
            and not self.excluded_by_mask(device_ids)
        )

    def prefer(self, node: Node, device_ids: tuple[str, ...]) -> int:
        """How many of the preferences a worker on these devices meets."""
        return sum(any(place.covers(node, device_ids) for place in rule.places) for rule in self.prefers)

    def labels(self, fleet: Fleet) -> list[str]:
        """All that can exclude a place, for people."""
        told = [rule.label(fleet) for rule in (*self.pins, *self.avoids)]
        return [*told, f"the request's device_mask {', '.join(sorted(self.device_mask))}"] if self.device_mask else told

    def sets(self) -> tuple[Place, ...]:
        """Devices that a rule wants together, in their order."""
        return tuple(
            place for rule in (*self.pins, *self.prefers) for place in rule.places if len(place.device_ids) > 1
        )


NO_RULES = Rules()


def rules_of(assignments: Assignments, fleet: Fleet, lane: Lane) -> Rules:
    """What holds for a lane now. A pin whose places are all lost does not hold if it allows a fallback."""
    if not len(assignments) and not lane.overrides:
        return NO_RULES
    applying = assignments.applying_to(lane.model, lane.app)
    has_own_pin = any(rule.mode is Mode.PIN and rule.is_specific for rule in applying)
    pins = [rule for rule in applying if rule.mode is Mode.PIN and (rule.is_specific or not has_own_pin)]
    avoids = [rule for rule in applying if rule.mode is Mode.AVOID and (rule.is_specific or not has_own_pin)]
    prefers = [rule for rule in applying if rule.mode is Mode.PREFER]
    rules = Rules(
        pins=tuple(map(_rule, pins)),
        avoids=tuple(map(_rule, avoids)),
        prefers=tuple(map(_rule, prefers)),
    )
    return _without_lost(fleet, _with_overrides(rules, lane.overrides))


def with_target(rules: Rules, places: tuple[Place, ...]) -> Rules:
    """The rules, and the place that the caller named for this one load."""
    return replace(rules, pins=(*rules.pins, Rule(places, words="asked for"))) if places else rules


def _rule(assignment: Assignment) -> Rule:
    return Rule(assignment.known_places, assignment, fallback=assignment.fallback)


def _with_overrides(rules: Rules, wishes: Overrides) -> Rules:
    if not wishes:
        return rules
    pins = (
        rules.pins if wishes.fallback is None else tuple(replace(pin, fallback=wishes.fallback) for pin in rules.pins)
    )
    own_pin = Rule(wishes.pin, words="the request's pin to", fallback=bool(wishes.fallback))
    own_avoid = Rule(wishes.avoid, words="the request avoids")
    own_preference = Rule(wishes.prefer, words="the request prefers")
    if wishes.above_rules:
        pins, rules = () if wishes.pin else pins, replace(rules, avoids=())
    return Rules(
        pins=(*pins, own_pin) if wishes.pin else pins,
        avoids=(*rules.avoids, own_avoid) if wishes.avoid else rules.avoids,
        prefers=(*rules.prefers, own_preference) if wishes.prefer else rules.prefers,
        device_mask=frozenset(wishes.device_mask),
    )


def _without_lost(fleet: Fleet, rules: Rules) -> Rules:
    held = tuple(pin for pin in rules.pins if not pin.fallback or any(_is_there(fleet, place) for place in pin.places))
    return rules if len(held) == len(rules.pins) else replace(rules, pins=held, fallback_used=True)


def _is_there(fleet: Fleet, place: Place) -> bool:
    node = fleet.nodes.get(place.node_id)
    if node is None or node.state is not NodeState.READY:
        return False
    devices = [node.devices[device_id] for device_id in devices_of(node, place)]
    is_whole = len(devices) == len(place.device_ids) or not place.device_ids
    return is_whole and bool(devices) and all(device.usable for device in devices)
