"""Filters: where a model can't be or must not be, and why. The tables at the end say in which order they are asked."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from llorch.assignment_mode import Mode
from llorch.counted import counted
from llorch.device_kind import DeviceKind
from orchestratord.core.facts.absence import Absence
from orchestratord.core.facts.drains import Drain
from orchestratord.core.facts.durations import duration
from orchestratord.core.facts.fleet import NodeState, Site
from orchestratord.core.facts.mode_effects import BINDING, EFFECTS, WANTING
from orchestratord.core.facts.rules import Rule
from orchestratord.core.placement import engines, promises
from orchestratord.core.placement.query import Query

CONTEXT = "context"
"""The name of the filter that takes out places for the length of one prompt."""

OLDEST_COMPUTE_CAPABILITY = (5, 0)
"""Maxwell: the oldest that a CUDA 12 compiler makes code for, and llama.cpp with it."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Takes out places where the model can't be or must not be.

    `matters` says once per decision whether it could remove anything at all; `removes` is asked for every place, so it
    only decides; `detail` says why, to people who ask. `absence` tells what is away, of a filter that may stop to
    remove a place while the place stays: what it removes can't be had now, what others remove never.
    """

    name: str
    removes: Callable[[Query, Site], bool]
    detail: Callable[[Query, Site], str]
    matters: Callable[[Query], bool] = lambda _: True
    absence: Callable[[Query, Site], Absence] | None = None


def context_of(query: Query, site: Site) -> int:
    """Tokens that one request may use there: as the worker tells, else as asked for."""
    if site.worker is not None and site.worker.engine is not None:
        return site.worker.engine.context_per_slot
    return query.request.context


def _is_not_ready(_: Query, site: Site) -> bool:
    """Nothing new goes to a node that can't be reached, or that is being emptied."""
    return site.node.state is not NodeState.READY


def _why_not_ready(query: Query, site: Site) -> str:
    return f"{_node_away(query, site).sentence}; nothing new is placed there"


def _node_away(query: Query, site: Site) -> Absence:
    """Tasks wait for a node that has just fallen silent, and after a start for those that were known before."""
    node, config = site.node, query.state.config
    silent_s = query.state.now - node.last_report_at
    if node.state is NodeState.AWAITED:
        left_s = config.recovery_window_s - silent_s
        why = f"is expected back: it has not registered since the orchestrator started {silent_s:.0f} s ago"
        return Absence(f"node '{node.node_id}'", why, left_s, soon=left_s > 0, for_s=left_s)
    left_s = node.last_report_at + config.no_device_grace_s - query.state.now
    why = f"is away: it has not reported for {silent_s:.0f} s (see to its pool manager)"
    is_soon = node.state is NodeState.SUSPECT and left_s > 0
    return Absence(f"node '{node.node_id}'", why, soon=is_soon, for_s=left_s)


def _has_not_the_file(query: Query, site: Site) -> bool:
    """A file of nodes' own folders can't be fetched by another node."""
    source = query.model.spec.source
    return source not in site.node.staged and source not in site.node.offered.values()


def _which_file(query: Query, site: Site) -> str:
    return f"{site.node.node_id} does not have {query.model.spec.source} in its models_dir, and other nodes have"


def _is_of_a_folder(query: Query) -> bool:
    """And some node has it."""
    source = query.model.spec.source
    return source.startswith("dir:") and any(
        source in node.staged or source in node.offered.values() for node in query.state.fleet.nodes.values()
    )


def _did_fail(query: Query, site: Site) -> bool:
    """A node where loading the model failed is left out until the model is asked for anew."""
    return site.node.node_id in query.request.excluded_nodes


def _why_it_failed(query: Query, site: Site) -> str:
    failure = query.state.refusals.get(query.model.name, {}).get(site.node.node_id)
    return f"it could not be loaded there{f': {failure.message}' if failure else ''}"


def _does_not_answer(_: Query, site: Site) -> bool:
    return not site.devices[0].usable


def _who_does_not_answer(_: Query, site: Site) -> str:
    return f"{site.name} of {site.node.node_id} does not answer"


def _device_away(query: Query, site: Site) -> Absence:
    failed_at = site.node.failed_at.get(site.device_ids[0], 0.0)
    left_s = failed_at + query.state.config.no_device_grace_s - query.state.now
    return Absence(f"{site.name} of {site.node.node_id}", "does not answer", soon=left_s > 0, for_s=left_s)


def _is_released(query: Query, site: Site) -> bool:
    """A device that its owner has taken back is not used until the owner gives it back."""
    return any((site.node.node_id, device_id) in query.state.released for device_id in site.device_ids)


def _what_was_released(query: Query, site: Site) -> str:
    return _release(query, site).sentence


def _release(query: Query, site: Site) -> Absence:
    """Tasks wait for a device that is given back by itself, and soon."""
    key = site.node.node_id, site.device_ids[0]
    due = query.state.released.due_at(key)
    what, why = f"{site.name} of {site.node.node_id}", "is released to its owner"
    if due is None:
        remedy = f"`llorch gpu resume {site.node.node_id}/{site.devices[0].index}`"
        return Absence(what, f"{why} until {remedy}", by_hand=True)
    left_s = max(0.0, due - query.state.now)
    is_soon = left_s <= query.state.config.no_device_grace_s
    return Absence(what, f"{why} for another {duration(left_s)}", left_s, soon=is_soon, for_s=left_s)


def _is_drained(query: Query, site: Site) -> bool:
    """Nothing is placed in a pool that is being emptied, or was, until it is reloaded."""
    return any(query.state.drains.covers((site.node.node_id, device_id)) for device_id in site.device_ids)


def _what_was_drained(query: Query, site: Site) -> str:
    drains = query.state.drains.on_node(site.node.node_id)
    found = [drain for drain in drains if set(drain.device_ids) & set(site.device_ids)]
    told = " and ".join(f"pool {drain.pool_id} is {_drained(drain)}" for drain in found)
    return f"{told}; `llorch pool reload {found[0].pool_id}` puts it to work again"


def _drain(query: Query, site: Site) -> Absence:
    """Tasks wait for a pool that is used again by itself."""
    drains = query.state.drains.on_node(site.node.node_id)
    drain = next(drain for drain in drains if site.device_ids[0] in drain.device_ids)
    if drain.comes_back:
        return Absence(f"pool {drain.pool_id}", "is being reloaded", soon=True)
    remedy = f"`llorch pool reload {drain.pool_id}` puts it to work again"
    return Absence(f"pool {drain.pool_id}", f"is {_drained(drain)}; {remedy}", by_hand=True)


def _drained(drain: Drain) -> str:
    return "drained" if drain.is_drained else "being drained"


def _is_older_than_the_engine(_: Query, site: Site) -> bool:
    """A card that does not tell is given the benefit of the doubt: the load says so if it was too old."""
    told = site.devices[0].compute_capability
    return told != "" and _is_too_old(site.devices[0].kind, told)


@cache
def _is_too_old(kind: DeviceKind, capability: str) -> bool:
    if kind is not DeviceKind.CUDA:
        return False
    major, _, minor = capability.partition(".")
    return major.isdigit() and minor.isdigit() and (int(major), int(minor)) < OLDEST_COMPUTE_CAPABILITY


def _how_old_it_is(_: Query, site: Site) -> str:
    needed = ".".join(map(str, OLDEST_COMPUTE_CAPABILITY))
    return f"{site.name} has compute capability {site.devices[0].compute_capability}; the engine needs {needed} or more"


def _lacks_the_engine(query: Query, site: Site) -> bool:
    return not engines.offers(site.devices[0], query.model.spec.engine)


def _what_it_offers(query: Query, site: Site) -> str:
    offered, model = " and ".join(site.devices[0].engines), query.model
    if not offered:
        return f"{site.node.node_id} reports no engines, and model '{model.name}' names one; upgrade its pool manager"
    return f"{site.name} runs {offered}, and model '{model.name}' names {model.spec.engine}; change its engine"


def _is_outside_of_the_mask(query: Query, site: Site) -> bool:
    """A request may say which devices may be used at all."""
    return query.rules.excluded_by_mask(site.device_ids)


def _what_the_mask_leaves_out(_: Query, site: Site) -> str:
    return f"the request's device_mask leaves {site.name} out"


def _by_rules(mode: Mode) -> Filter:
    """Where a rule of a binding mode, or the request, does not let it be."""

    def broken(query: Query, site: Site) -> Rule | None:
        return query.rules.excluded_by(mode, site.node, site.device_ids)

    def label(query: Query, site: Site) -> str:
        rule = broken(query, site)
        return rule.label(query.state.fleet) if rule is not None else ""

    return Filter(
        EFFECTS[mode].binds_as,
        lambda query, site: broken(query, site) is not None,
        label,
        lambda query: bool(query.rules.of(mode)),
    )


def _is_too_short(query: Query, site: Site) -> bool:
    return query.request.prompt_tokens >= context_of(query, site)


def _what_is_too_short(query: Query, site: Site) -> str:
    return too_many_tokens(query.request.prompt_tokens, context_of(query, site))


def too_many_tokens(prompt: int, context: int) -> str:
    return f"the prompt has {counted(prompt, 'token')}, and the context {context}"


def _prompt_is_known(query: Query) -> bool:
    return query.request.prompt_is_exact and query.request.prompt_tokens > 0


def _gives_other_bytes(query: Query, site: Site) -> bool:
    """The output of a deterministic task has begun, and what goes on there would not go on as it began."""
    promise = query.request.lane.promise
    if promise is None:
        return False
    if site.worker is not None:
        return not promises.is_kept_by(query.state, promise, site.worker)
    return not promises.may_be_kept_at(query, promise, site)


def _what_is_other(query: Query, site: Site) -> str:
    promise = query.request.lane.promise
    return promises.why_not(query, promise, site) if promise is not None else ""


def _starts_over(query: Query, site: Site) -> bool:
    """There is output, and what runs there could not go on from it."""
    engine = site.worker.engine if site.worker is not None else None
    return query.request.lane.continues and engine is not None and not engine.resumes


def _why_it_starts_over(_: Query, site: Site) -> str:
    return f"the output has begun, and the worker on {site.node.node_id} can't go on from output of another one"


_NODE_READY = Filter("node_ready", _is_not_ready, _why_not_ready, absence=_node_away)
_FILE = Filter("model_file", _has_not_the_file, _which_file, _is_of_a_folder)
_LOAD_FAILED = Filter("load_failed", _did_fail, _why_it_failed, lambda query: bool(query.request.excluded_nodes))
_DEVICE_USABLE = Filter("device_usable", _does_not_answer, _who_does_not_answer, absence=_device_away)
_RELEASED = Filter(
    "device_released",
    _is_released,
    _what_was_released,
    lambda query: len(query.state.released) > 0,
    absence=_release,
)
_DRAINING = Filter(
    "pool_draining", _is_drained, _what_was_drained, lambda query: len(query.state.drains) > 0, absence=_drain
)
_COMPUTE_CAPABILITY = Filter("compute_capability", _is_older_than_the_engine, _how_old_it_is)
_ENGINE = Filter("engine", _lacks_the_engine, _what_it_offers, lambda query: query.model.spec.engine != "")
_DEVICE_MASK = Filter(
    "device_mask", _is_outside_of_the_mask, _what_the_mask_leaves_out, lambda query: bool(query.rules.device_mask)
)
_WANT_NO_DEVICE = tuple(_by_rules(mode) for mode in BINDING if mode not in WANTING)
_WANT_A_SET = tuple(_by_rules(mode) for mode in BINDING if mode in WANTING)
_CONTEXT = Filter(CONTEXT, _is_too_short, _what_is_too_short, _prompt_is_known)

_FINGERPRINT = Filter(
    "fingerprint", _gives_other_bytes, _what_is_other, lambda query: query.request.lane.promise is not None
)

_CONTINUATION = Filter("continuation", _starts_over, _why_it_starts_over, lambda query: query.request.lane.continues)

# What is told to people is the first that applies.

OF_NODES = (_NODE_READY, _LOAD_FAILED, _FILE)
"""Asked once per node, with a site without devices."""

OF_DEVICES = (_DEVICE_USABLE, _RELEASED, _DRAINING, _ENGINE, _COMPUTE_CAPABILITY, _DEVICE_MASK, *_WANT_NO_DEVICE)
"""Asked per device; a set of devices is made of those that they leave."""

OF_SETS = (*_WANT_A_SET, _CONTEXT, _FINGERPRINT)
"""Asked per set of devices, be it one device or several."""

OF_RULES = (_DEVICE_MASK, *_WANT_NO_DEVICE, *_WANT_A_SET)
"""Of all these, those that follow what people say."""

ALWAYS_TOLD = (*OF_RULES, _FINGERPRINT)
"""Those that are told of places that do not matter, too, since a worker is there already."""

OF_WORKERS = (_NODE_READY, *OF_RULES, _CONTEXT, _FINGERPRINT, _CONTINUATION)
"""Asked per worker that is there already."""
