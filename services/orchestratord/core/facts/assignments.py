"""Where models go: the rules that people set for models, for apps, and for models of apps.

A pin for a model of an app is more specific than what is said for the model or for the app, and stands in its stead.
Otherwise all rules hold at once; such as together leave no place are refused (`contradictions`).
"""

from dataclasses import dataclass, field
from itertools import count

from llorch.assignment_mode import Mode
from llorch.errors import NotFound, Reason
from llorch.options.assignment import RuleTerms
from orchestratord.core.facts.fleet import Fleet
from orchestratord.core.facts.model import Origin
from orchestratord.core.facts.targets import Place, show, why_missing


@dataclass(frozen=True, slots=True)
class Assignment(RuleTerms):
    """A rule. `targets` are the places as they were written; `places` what they meant when their nodes were there.

    The two are of one length once the rule is set. A place is None as long as its node has never been seen, which only
    a rule of the settings file can have.
    """

    assignment_id: str
    model: str
    app: str
    targets: tuple[str, ...]
    mode: Mode
    places: tuple[Place | None, ...] = ()
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
    """How many workers of a model there have to be, for all apps. `replicas_max` is 1 unless a rule sets it."""

    keep_loaded: bool = False
    replicas_min: int = 0
    replicas_max: int = 1


@dataclass(slots=True)
class Assignments:
    """All rules, found by id, by model and by app."""

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
        """Models that have to be loaded whether or not tasks ask for them."""
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

    def discard(self, assignment_id: str) -> None:
        rule = self._by_id.pop(assignment_id, None)
        if rule is None:
            return
        for index, subject in ((self._by_model, rule.model), (self._of_apps, rule.app)):
            if subject:
                del index[subject][assignment_id]
                if not index[subject]:
                    del index[subject]

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


def describe(fleet: Fleet, rule: Assignment) -> str:
    """For example: coder for aider only on garage/RTX 3090."""
    subject = f"{rule.model} for {rule.app}" if rule.is_specific else rule.model or f"app {rule.app}"
    places = (_named(fleet, *named) for named in zip(rule.targets, rule.places, strict=True))
    return f"{subject} {rule.mode.before_places} {' or '.join(places)}"


def _named(fleet: Fleet, target: str, place: Place | None) -> str:
    name = target if place is None else show(fleet, place)
    return f"{name} (not there)" if why_missing(fleet, target, place) else name


def _says_the_same(one: Assignment, other: Assignment) -> bool:
    return (one.model, one.app, one.places, one.mode) == (other.model, other.app, other.places, other.mode)
