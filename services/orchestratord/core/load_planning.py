"""Where a model would be loaded now, with how much context, and what if it can't be."""

from dataclasses import dataclass, replace

from orchestratord.core.catalog import Model
from orchestratord.core.contexts import contexts_to_try
from orchestratord.core.loads import Plan
from orchestratord.core.memory_estimate import estimate_mib
from orchestratord.core.placement import Decision, place
from orchestratord.core.placement.rules import Lane
from orchestratord.core.state import BrainState
from orchestratord.core.targets import Place


@dataclass(frozen=True, slots=True)
class Outlook:
    """`plan` is None if nothing is possible now. `waits`: it would be, if workers were gone that can't leave yet."""

    decision: Decision
    plan: Plan | None
    needed_mib: int

    @property
    def waits(self) -> bool:
        return self.plan is None and self.decision.waits


def outlook(
    state: BrainState,
    model: Model,
    lane: Lane,
    excluded_nodes: frozenset[str] = frozenset(),
    places: tuple[Place, ...] = (),
) -> Outlook:
    """The largest context that fits anywhere at all; less only where the owner left it open."""
    first: Outlook | None = None
    for context in contexts_to_try(model):
        looked = _with_context(state, model, context, excluded_nodes)
        if looked.plan is not None or looked.waits:
            return looked
        first = first or looked
    assert first is not None  # there is always a context to try
    return first


def _with_context(state: BrainState, model: Model, context: int, excluded_nodes: frozenset[str]) -> Outlook:
    needed_mib = 0
    if model.size_mib is not None:
        needed_mib = estimate_mib(replace(model, spec=replace(model.spec, context=context)), model.size_mib)
    decision = place(state.fleet, state.ledger, needed_mib, excluded_nodes)
    chosen = decision.chosen
    if chosen is None:
        return Outlook(decision, None, needed_mib)
    plan = Plan(chosen.node.node_id, (chosen.device.device_id,), (needed_mib,), context, evicts=chosen.evicts)
    return Outlook(decision, plan, needed_mib)
