"""Who goes where: the rules that people set for models, for apps, and for models of apps.

A pin for a model of an app is more specific than what is said for the model or for the app, and stands in its stead.
Otherwise all rules hold at once; two that together leave no place are refused when the second is set.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count

from llorch.errors import FailedPrecondition, NotFound, Reason, invalid_field
from orchestratord.core.catalog import Origin
from orchestratord.core.fleet import Fleet
from orchestratord.core.targets import Place, devices_of, show


class Mode(StrEnum):
    PIN = "PIN"
    PREFER = "PREFER"
    AVOID = "AVOID"


_WORDS = {Mode.PIN: "only on", Mode.PREFER: "preferably on", Mode.AVOID: "not on"}


@dataclass(frozen=True, slots=True)
class Assignment:
    """A rule. `targets` are the places as they were written; `places` what they meant when their nodes were there.

    The two are of one length once the rule is set. A place is None as long as its node has never been seen, which only
    a rule of the settings file can have. `replicas_min` and `replicas_max` are 0 where nothing was said.
    """

    assignment_id: str
    model: str
    app: str
    targets: tuple[str, ...]
    mode: Mode
    places: tuple[Place | None, ...] = ()
    keep_loaded: bool = False
    replicas_min: int = 0
    replicas_max: int = 0
    fallback: bool = False
    origin: Origin = Origin.CALL
    created_at_ms: int = 0

    @property
    def record_key(self) -> str:
        return self.assignment_id

    @property
    def known_places(self) -> tuple[Place, ...]:
        return tuple(place for place in self.places if place is not None)

    @property
    def is_specific(self) -> bool:
        """For a model of an app."""
        return bool(self.model and self.app)

    def applies_to(self, model: str, app: str) -> bool:
        return self.model in ("", model) and self.app in ("", app)


@dataclass(frozen=True, slots=True)
class LoadingRules:
    """How many workers of a model there have to be, whoever asks. `replicas_max` is 1 unless somebody said more."""

    keep_loaded: bool = False
    replicas_min: int = 0
    replicas_max: int = 1


@dataclass(slots=True)
class Assignments:
    """All rules, found by model and by app. `version` grows with every change."""

    version: int = 0
    _by_id: dict[str, Assignment] = field(default_factory=dict)
    _by_model: dict[str, dict[str, Assignment]] = field(default_factory=dict)
    _of_apps: dict[str, dict[str, Assignment]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._by_id)

    def all(self) -> list[Assignment]:
        return [self._by_id[name] for name in sorted(self._by_id)]

    def find(self, assignment_id: str) -> Assignment | None:
        return self._by_id.get(assignment_id)

    def get(self, assignment_id: str) -> Assignment:
        if found := self._by_id.get(assignment_id):
            return found
        raise NotFound(
            Reason.ASSIGNMENT_NOT_FOUND,
            f"no assignment has the id '{assignment_id[:128]}'; `llorch assignments` lists them",
        )

    def applying_to(self, model: str, app: str = "") -> list[Assignment]:
        """By id, so that equal rules are always told in one order."""
        found = self._by_model.get(model, {}) | (self._of_apps.get(app, {}) if app else {})
        return [found[name] for name in sorted(found) if found[name].applies_to(model, app)]

    def names_app(self, app: str) -> bool:
        """Whether it matters for any placement that this app asks."""
        return bool(app) and app in self._of_apps

    def loading(self, model: str) -> LoadingRules:
        rules = self._by_model.get(model, {}).values()
        least = max((rule.replicas_min for rule in rules), default=0)
        return LoadingRules(
            keep_loaded=any(rule.keep_loaded for rule in rules),
            replicas_min=least,
            replicas_max=max(1, least, *(rule.replicas_max for rule in rules)),
        )

    def kept_models(self) -> list[str]:
        """Models that have to be there although nobody may have asked for them."""
        return sorted(
            name
            for name, rules in self._by_model.items()
            if any(rule.keep_loaded or rule.replicas_min for rule in rules.values())
        )

    def unresolved(self) -> list[Assignment]:
        return [rule for rule in self.all() if None in rule.places]

    def put(self, rule: Assignment) -> None:
        self.discard(rule.assignment_id)
        self._by_id[rule.assignment_id] = rule
        for index, subject in ((self._by_model, rule.model), (self._of_apps, rule.app)):
            if subject:
                index.setdefault(subject, {})[rule.assignment_id] = rule
        self.version += 1

    def discard(self, assignment_id: str) -> None:
        rule = self._by_id.pop(assignment_id, None)
        if rule is None:
            return
        for index, subject in ((self._by_model, rule.model), (self._of_apps, rule.app)):
            if subject:
                del index[subject][assignment_id]
                if not index[subject]:
                    del index[subject]
        self.version += 1

    def id_for(self, rule: Assignment) -> str:
        """An id that reads well, for a rule without one; that of an equal rule if there is one."""
        subject = ":".join(part for part in (rule.model, rule.app and f"app.{rule.app}") if part)
        first = f"{subject}.{rule.mode.lower()}"
        for number in count(1):
            proposed = first if number == 1 else f"{first}-{number}"
            there = self._by_id.get(proposed)
            if there is None or _says_the_same(there, rule):
                return proposed
        raise AssertionError("unreachable: numbers do not end")

    def check(self, fleet: Fleet, rule: Assignment) -> None:
        """Refuse a rule that says nothing, or that contradicts another; the message names both."""
        _check_alone(rule)
        others = [other for other in self._by_id.values() if other.assignment_id != rule.assignment_id]
        for other in sorted(others, key=lambda other: other.assignment_id):
            if why := self._contradiction(fleet, rule, other):
                raise FailedPrecondition(
                    Reason.ASSIGNMENT_CONFLICT,
                    f"'{rule.assignment_id}' ({describe(fleet, rule)}) contradicts '{other.assignment_id}' "
                    f"({describe(fleet, other)}): {why}; change one of them, or delete it with "
                    f"`llorch assignments delete {other.assignment_id}`",
                    metadata={"assignment_id": rule.assignment_id, "contradicts": other.assignment_id},
                )

    def _contradiction(self, fleet: Fleet, one: Assignment, other: Assignment) -> str | None:
        if one.model == other.model and 0 < one.replicas_max != other.replicas_max > 0:
            return "they name different numbers of replicas"
        if not _meet(one, other) or self._is_decided_elsewhere(one, other):
            return None
        first, second = sorted((one, other), key=lambda rule: list(Mode).index(rule.mode))
        is_same_subject = (one.model, one.app) == (other.model, other.app)
        if first.mode is Mode.PREFER and not is_same_subject:
            return None
        if second.mode is Mode.AVOID and first.mode is not Mode.AVOID:
            return None if _leaves_a_place(fleet, first, second) else "every place that one names, the other forbids"
        if first.mode is not Mode.PIN or (second.mode is Mode.PREFER and not is_same_subject):
            return None
        return None if _share_a_place(fleet, first, second) else "no place satisfies both"

    def _is_decided_elsewhere(self, one: Assignment, other: Assignment) -> bool:
        """A pin for the model of the app stands in the stead of what is said for the model and for the app."""
        if one.is_specific != other.is_specific:
            specific = one if one.is_specific else other
            return specific.mode is Mode.PIN
        model, app = one.model or other.model, one.app or other.app
        return not one.is_specific and any(
            rule.mode is Mode.PIN and rule.is_specific for rule in self.applying_to(model, app)
        )


def describe(fleet: Fleet, rule: Assignment) -> str:
    """For example: coder for aider only on garage/RTX 3090."""
    subject = f"{rule.model} for {rule.app}" if rule.is_specific else rule.model or f"app {rule.app}"
    places = (
        target if place is None else show(fleet, place) for target, place in zip(rule.targets, rule.places, strict=True)
    )
    return f"{subject} {_WORDS[rule.mode]} {' or '.join(places)}"


def _says_the_same(one: Assignment, other: Assignment) -> bool:
    return (one.model, one.app, one.places, one.mode) == (other.model, other.app, other.places, other.mode)


def _check_alone(rule: Assignment) -> None:
    if not rule.model and not rule.app:
        raise invalid_field("model", "names nobody; say which model or which app is assigned")
    if not rule.targets:
        raise invalid_field("targets", "names no place; for example garage/3090")
    if rule.replicas_max and rule.replicas_min > rule.replicas_max:
        raise invalid_field("replicas_min", f"is {rule.replicas_min}, above replicas_max, {rule.replicas_max}")
    if not rule.model and (rule.keep_loaded or rule.replicas_min or rule.replicas_max):
        raise invalid_field("model", "is needed with keep_loaded and replicas: they say how often a model is loaded")
    if rule.fallback and rule.mode is not Mode.PIN:
        raise invalid_field(
            "fallback", f"means something for pins alone; {rule.mode.lower()} always leaves other places"
        )


def _meet(one: Assignment, other: Assignment) -> bool:
    """Whether some app that asks for some model is subject to both."""
    return _same_or_any(one.model, other.model) and _same_or_any(one.app, other.app)


def _same_or_any(one: str, other: str) -> bool:
    return not one or not other or one == other


def _share_a_place(fleet: Fleet, one: Assignment, other: Assignment) -> bool:
    if None in one.places or None in other.places:
        return True
    return any(_compatible(fleet, here, there) for here in one.known_places for there in other.known_places)


def _leaves_a_place(fleet: Fleet, wanted: Assignment, avoided: Assignment) -> bool:
    """Whether the avoided places leave something of those wanted."""
    if None in wanted.places:
        return True
    return any(_has_rest(fleet, place, avoided.known_places) for place in wanted.known_places)


def _compatible(fleet: Fleet, one: Place, other: Place) -> bool:
    """Whether one worker could be at both."""
    if one.node_id != other.node_id:
        return False
    if _is_set(one) and _is_set(other):
        return set(one.device_ids) == set(other.device_ids)
    here, there = _devices(fleet, one), _devices(fleet, other)
    if here is None or there is None:
        return True
    if _is_set(one) or _is_set(other):
        return here <= there if _is_set(one) else there <= here
    return not here.isdisjoint(there)


def _has_rest(fleet: Fleet, place: Place, avoided: Iterable[Place]) -> bool:
    here = _devices(fleet, place)
    if here is None:
        return not any(other.node_id == place.node_id and not _is_set(other) for other in avoided)
    gone: set[str] = set()
    for other in avoided:
        if other.node_id == place.node_id:
            there = _devices(fleet, other)
            gone |= here if there is None else here & there
    return not gone if _is_set(place) else bool(here - gone)


def _is_set(place: Place) -> bool:
    """Devices that are meant together, one or several."""
    return bool(place.device_ids)


def _devices(fleet: Fleet, place: Place) -> set[str] | None:
    """None if they are not known: a whole node that is not there now."""
    if place.device_ids:
        return set(place.device_ids)
    node = fleet.nodes.get(place.node_id)
    return None if node is None else set(devices_of(node, place))
