"""What people say about where a task may run, put together: assignments, and the wishes of the request itself."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from llorch.assignment_mode import Mode
from llorch.options.task import WISHES
from orchestratord.core.facts.assignments import Assignment, Assignments, describe
from orchestratord.core.facts.fleet import Fleet, Node, NodeState
from orchestratord.core.facts.mode_effects import BINDING, EFFECTS, PREFERRING, WANTING
from orchestratord.core.facts.promise import Promise
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

    def of(self, mode: Mode) -> tuple[Place, ...]:
        places: tuple[Place, ...] = getattr(self, mode.word) if mode in WISHES else ()
        return places

    def __bool__(self) -> bool:
        return self != NO_OVERRIDES


NO_OVERRIDES = Overrides()


@dataclass(frozen=True, slots=True)
class Lane:
    """All of a task that decides where it may run. Tasks of one lane may stand in for each other.

    `app` is empty unless a rule names the app, and `promise` None unless the output of a deterministic task has begun.
    `continues`: there is output to go on from. `suspect` is the id of a task that may end its worker: it waits by
    itself.
    """

    model: str
    app: str = ""
    overrides: Overrides = NO_OVERRIDES
    promise: Promise | None = None
    continues: bool = False
    suspect: str = ""


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
    """All that hold for a lane; a mode without rules has no entry."""

    by_mode: Mapping[Mode, tuple[Rule, ...]] = field(default_factory=dict)
    device_mask: frozenset[str] = frozenset()
    fallback_used: bool = False

    def of(self, mode: Mode) -> tuple[Rule, ...]:
        return self.by_mode.get(mode, ())

    @property
    def excludes(self) -> bool:
        """Whether they could exclude any place."""
        return bool(self.device_mask) or any(mode in self.by_mode for mode in BINDING)

    @property
    def prefers(self) -> bool:
        """Whether they could prefer one place to another."""
        return bool(self.by_mode) and any(mode in self.by_mode for mode in PREFERRING)

    def excluded_by(self, mode: Mode, node: Node, device_ids: tuple[str, ...]) -> Rule | None:
        """The first rule of a binding mode that a worker on these devices would not meet."""
        for rule in self.of(mode):
            if not _is_met(mode, rule, node, device_ids):
                return rule
        return None

    def excluded_by_mask(self, device_ids: Iterable[str]) -> bool:
        return bool(self.device_mask) and not self.device_mask.issuperset(device_ids)

    def admits(self, node: Node, device_ids: tuple[str, ...]) -> bool:
        if not self.by_mode and not self.device_mask:  # asked for every worker of a model, mostly without rules
            return True
        is_excluded = any(self.excluded_by(mode, node, device_ids) for mode in BINDING)
        return not is_excluded and not self.excluded_by_mask(device_ids)

    def preferences_met(self, node: Node, device_ids: tuple[str, ...]) -> int:
        """By a worker on these devices."""
        return sum(_is_met(mode, rule, node, device_ids) for mode in PREFERRING for rule in self.of(mode))

    def labels(self, fleet: Fleet) -> list[str]:
        """All that can exclude a place, for people."""
        told = [rule.label(fleet) for mode in BINDING for rule in self.of(mode)]
        return [*told, f"the request's device_mask {', '.join(sorted(self.device_mask))}"] if self.device_mask else told

    def sets(self) -> tuple[Place, ...]:
        """Devices that a rule or a request wants together, in their order."""
        wanted = (place for mode in WANTING for rule in self.of(mode) for place in rule.places)
        return tuple(place for place in wanted if len(place.device_ids) > 1)


NO_RULES = Rules()


def rules_of(assignments: Assignments, fleet: Fleet, lane: Lane) -> Rules:
    """What holds for a lane now. A pin whose places are all lost does not hold if it allows a fallback."""
    if not len(assignments) and not lane.overrides:
        return NO_RULES
    applying = assignments.applying_to(lane.model, lane.app)
    has_own_pin = any(rule.mode is Mode.PIN and rule.is_specific for rule in applying)
    held = [rule for rule in applying if rule.is_specific or not (has_own_pin and EFFECTS[rule.mode].binds)]
    rules = Rules(_by_mode(lambda mode: tuple(_rule(rule) for rule in held if rule.mode is mode)))
    return _without_lost(fleet, _with_overrides(rules, lane.overrides))


def with_target(rules: Rules, places: tuple[Place, ...]) -> Rules:
    """The rules, and the place that was named for this one load."""
    return _with_pins(rules, (*rules.of(Mode.PIN), Rule(places, words="the target"))) if places else rules


def _by_mode(rules: Callable[[Mode], tuple[Rule, ...]]) -> dict[Mode, tuple[Rule, ...]]:
    return {mode: found for mode in EFFECTS if (found := rules(mode))}


def _is_met(mode: Mode, rule: Rule, node: Node, device_ids: tuple[str, ...]) -> bool:
    if EFFECTS[mode].wants:
        return any(place.covers(node, device_ids) for place in rule.places)
    return not any(place.touches(node, device_ids) for place in rule.places)


def _rule(assignment: Assignment) -> Rule:
    return Rule(assignment.known_places, assignment, fallback=assignment.fallback)


def _with_overrides(rules: Rules, wishes: Overrides) -> Rules:
    if not wishes:
        return rules
    return Rules(
        _by_mode(lambda mode: (*_beside(wishes, mode, rules.of(mode)), *_wished(wishes, mode))),
        device_mask=frozenset(wishes.device_mask),
    )


def _beside(wishes: Overrides, mode: Mode, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """What is left of assignments beside the wishes. Above the rules, pins hold unless the request has its own."""
    if wishes.above_rules and EFFECTS[mode].binds and (mode is not Mode.PIN or wishes.pin):
        return ()
    if mode is Mode.PIN and wishes.fallback is not None:
        return tuple(replace(pin, fallback=wishes.fallback) for pin in rules)
    return rules


def _wished(wishes: Overrides, mode: Mode) -> tuple[Rule, ...]:
    places = wishes.of(mode)
    return (Rule(places, words=EFFECTS[mode].wished, fallback=bool(wishes.fallback)),) if places else ()


def _without_lost(fleet: Fleet, rules: Rules) -> Rules:
    pins = rules.of(Mode.PIN)
    held = tuple(pin for pin in pins if not pin.fallback or any(_is_there(fleet, place) for place in pin.places))
    return rules if len(held) == len(pins) else replace(_with_pins(rules, held), fallback_used=True)


def _with_pins(rules: Rules, pins: tuple[Rule, ...]) -> Rules:
    return replace(rules, by_mode=_by_mode(lambda mode: pins if mode is Mode.PIN else rules.of(mode)))


def _is_there(fleet: Fleet, place: Place) -> bool:
    node = fleet.nodes.get(place.node_id)
    if node is None or node.state is not NodeState.READY:
        return False
    devices = [node.devices[device_id] for device_id in devices_of(node, place)]
    is_whole = len(devices) == len(place.device_ids) or not place.device_ids
    return is_whole and bool(devices) and all(device.usable for device in devices)
