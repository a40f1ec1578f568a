"""Why a rule is not met: what it names and is not there, and models that are too large for its places.

What is said to be too large could not be loaded there if nothing else were; what does not fit now is no problem here.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from llorch.assignment_mode import Mode
from llorch.split_mode import SplitMode
from orchestratord.core.facts.assignments import Assignment, describe
from orchestratord.core.facts.contexts import contexts_to_try
from orchestratord.core.facts.fleet import Device, Node
from orchestratord.core.facts.ledger import DeviceKey
from orchestratord.core.facts.model import Model, Origin
from orchestratord.core.facts.rules import NO_RULES, Lane, rules_of
from orchestratord.core.facts.targets import Place, devices_of, show, why_missing
from orchestratord.core.placement import replicas
from orchestratord.core.placement.claims import Claims
from orchestratord.core.placement.needs import told_need
from orchestratord.core.placement.query import LoadRequest, Query
from orchestratord.core.state import BrainState


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A pinned model and the largest of its places, both in MiB. `is_final`: all of its places are there."""

    model: Model
    needed_mib: int
    largest_mib: int
    where: str
    is_final: bool

    def __str__(self) -> str:
        return (
            f"{told_need(self.model, self.needed_mib)}, and the largest place that is there of those, {self.where}, "
            f"holds {self.largest_mib} MiB when empty"
        )


@dataclass(frozen=True)
class _Kept:
    """A model that rules keep loaded, what all its workers take at least, and the devices that they may use."""

    name: str
    mib: int
    devices: frozenset[DeviceKey]


class RuleProblems:
    """Of the rules of one moment: what many of them need is computed once."""

    def __init__(self, state: BrainState) -> None:
        self._state = state

    def of(self, rule: Assignment) -> list[str]:
        found = list(self._missing(rule))
        if (large := too_large(self._state, rule)) is not None:
            found.append(str(large))
        elif crowd := self._crowd(rule):
            found.append(crowd)
        return found

    def of_model(self, name: str) -> list[str]:
        """Rules that can't be met with the model as it is now."""
        state = self._state
        rules = [rule for rule in state.assignments.all() if rule.model == name]
        return [
            f"'{rule.assignment_id}' ({describe(state.fleet, rule)}): {problem}"
            for rule in rules
            for problem in self.of(rule)
        ]

    def _missing(self, rule: Assignment) -> Iterator[str]:
        if rule.model and self._state.catalog.find(rule.model) is None:
            yield f"no model is called '{rule.model}' now"
        if rule.app and self._state.apps.find(rule.app) is None:
            yield f"no app is called '{rule.app}' now"
        for target, place in zip(rule.targets, rule.places, strict=True):
            if why := why_missing(self._state.fleet, target, place):
                yield why

    def _crowd(self, rule: Assignment) -> str:
        """Models that are to stay loaded and that its places could not hold all at once."""
        own = next((kept for kept in self._kept if kept.name == rule.model), None)
        if own is None or not (rule.keep_loaded or rule.replicas_min):
            return ""
        there = [kept for kept in self._kept if kept.devices is own.devices or kept.devices <= own.devices]
        needed = sum(kept.mib for kept in there)
        has = sum(self._state.fleet.nodes[node_id].devices[device_id].empty_mib for node_id, device_id in own.devices)
        if needed <= has or not has:
            return ""
        names = " and ".join(kept.name for kept in there)
        return f"to keep {names} loaded takes about {needed} MiB, and all places for that hold {has} MiB together"

    @cached_property
    def _kept(self) -> list[_Kept]:
        models = [self._state.catalog.find(name) for name in self._state.assignments.kept_models()]
        return [self._of_kept(model) for model in models if model is not None and model.memory_is_known]

    def _of_kept(self, model: Model) -> _Kept:
        pins = rules_of(self._state.assignments, self._state.fleet, Lane(model.name)).of(Mode.PIN)
        nodes, devices = self._state.fleet.nodes, self._all_devices
        for pin in pins:
            places = [(nodes[place.node_id], place) for place in pin.places if place.node_id in nodes]
            devices &= {(node.node_id, device_id) for node, place in places for device_id in devices_of(node, place)}
        each = _least_mib(self._state, model, [nodes[node_id].devices[device_id] for node_id, device_id in devices])
        return _Kept(model.name, replicas.least(self._state, model.name) * each, devices)

    @cached_property
    def _all_devices(self) -> frozenset[DeviceKey]:
        nodes = self._state.fleet.nodes.values()
        return frozenset((node.node_id, device_id) for node in nodes for device_id in node.devices)


def too_large(state: BrainState, rule: Assignment) -> TooLarge | None:
    """None as long as one of its places could hold the model, or it is not known what it takes."""
    model = state.catalog.find(rule.model) if rule.model else None
    if rule.mode is not Mode.PIN or model is None or not model.memory_is_known:
        return None
    found: list[TooLarge] = []
    is_final = True
    for target, place in zip(rule.targets, rule.places, strict=True):
        is_final = is_final and not why_missing(state.fleet, target, place)
        node = state.fleet.nodes.get(place.node_id) if place is not None else None
        if place is None or node is None:
            continue
        for devices in _together(node, place, model):
            needed = _least_mib(state, model, devices)
            capacity = sum(device.empty_mib for device in devices)
            if needed <= capacity:
                return None
            found.append(TooLarge(model, needed, capacity, show(state.fleet, place), is_final=True))
    if not found:
        return None
    largest = max(found, key=lambda one: one.largest_mib)
    return replace(largest, is_final=is_final)


def left_behind(state: BrainState, *, model: str = "", app: str = "") -> list[str]:
    """What still names a model or an app that was deleted."""
    gone_model = model if model and state.catalog.find(model) is None else ""
    gone_app = app if app and state.apps.find(app) is None else ""
    rules = [
        rule
        for rule in state.assignments.all()
        if (gone_model and rule.model == gone_model) or (gone_app and rule.app == gone_app)
    ]
    what = f"model '{model}'" if model else f"app '{app}'"
    return [
        *(_still_names(state, rule, what) for rule in rules),
        *(
            f"app '{one.name}' still means {what} by '{own_name}': such requests are refused until there is one again"
            for one in state.apps.all()
            for own_name, meant in sorted(one.models.items())
            if gone_model and meant == gone_model
        ),
    ]


def _still_names(state: BrainState, rule: Assignment, what: str) -> str:
    remedy = "remove it in the settings file" if rule.origin is Origin.FILE else f"llorch unassign {rule.assignment_id}"
    return (
        f"'{rule.assignment_id}' ({describe(state.fleet, rule)}) still names {what}, and holds again for the next one "
        f"of this name; to be rid of it: {remedy}"
    )


def _together(node: Node, place: Place, model: Model) -> Iterable[Sequence[Device]]:
    """Devices of the place that one worker might use at once: those that it names, else those of one kind."""
    devices = [node.devices[device_id] for device_id in devices_of(node, place)]
    if place.device_ids:
        return [devices] if len(devices) == len(place.device_ids) else []
    if model.split is SplitMode.NONE:
        return [[device] for device in devices]
    kinds = {device.kind: None for device in devices}
    return [[device for device in devices if device.kind is kind] for kind in kinds]


def _least_mib(state: BrainState, model: Model, devices: Iterable[Device]) -> int:
    """On the one of these where it takes least, with the smallest context that its owner has left open.

    In parts a model takes no less than as a whole. Devices of one kind and card take the same.
    """
    cards = {(device.kind, device.name, device.engines): device for device in devices}
    requests = (LoadRequest(model, Lane(model.name), context) for context in contexts_to_try(model))
    claims = [Claims(Query(state, request, NO_RULES)) for request in requests]
    return min((known.on((device,))[0] for known in claims for device in cards.values()), default=0)
