"""Where a model would be loaded now, with how much context, and why it can't be."""

from dataclasses import dataclass

from orchestratord.core.facts.contexts import contexts_to_try
from orchestratord.core.facts.decision import Candidate, Decision
from orchestratord.core.facts.loads import Plan
from orchestratord.core.facts.memory_estimate import estimate_mib
from orchestratord.core.facts.model import Model
from orchestratord.core.facts.promise import Promise
from orchestratord.core.facts.rules import Lane
from orchestratord.core.facts.targets import Place
from orchestratord.core.placement import pipeline
from orchestratord.core.placement.lanes import rank_in
from orchestratord.core.placement.query import LoadRequest
from orchestratord.core.state import BrainState


@dataclass(frozen=True, slots=True)
class Outlook:
    """`plan` is None if nothing is possible now. `waits`: it would be, if workers were gone that can't leave yet.

    `context` is the one that was looked at, in tokens, `promise` what the place has to keep.
    """

    decision: Decision
    context: int
    plan: Plan | None
    needed_mib: int
    promise: Promise | None = None

    @property
    def waits(self) -> bool:
        return self.plan is None and self.decision.waits


def outlook(
    state: BrainState,
    model: Model,
    lane: Lane,
    excluded_nodes: frozenset[str] = frozenset(),
    places: tuple[Place, ...] = (),
    *,
    for_tasks: bool = True,
) -> Outlook:
    """The largest context that fits anywhere at all; less only where the owner left it open."""
    rank = rank_in(state, lane) if for_tasks else 0
    first: Outlook | None = None
    for context in contexts_to_try(model):
        request = LoadRequest(model, lane, context, excluded_nodes, places, for_tasks=for_tasks, rank=rank)
        looked = _with(state, request)
        if looked.plan is not None or looked.waits:
            return looked
        first = first or looked
    assert first is not None  # there is always a context to try
    return first


def may_ever_fit(state: BrainState, model: Model, lane: Lane) -> bool:
    """With as much context as asked for. If not, the outlook says whether less would do, and why not."""
    return pipeline.may_ever_fit(state, LoadRequest(model, lane, model.context))


def _with(state: BrainState, request: LoadRequest) -> Outlook:
    model, context = request.model, request.context
    needed_mib = model.vram_claim_mib or 0
    if model.size_mib is not None:
        needed_mib = estimate_mib(model, model.size_mib, context)
    decision = pipeline.place_load(state, request)
    chosen = decision.chosen
    if chosen is None:
        return Outlook(decision, context, None, needed_mib, request.lane.promise)
    return Outlook(decision, context, plan_of(chosen, context), needed_mib, request.lane.promise)


def plan_of(chosen: Candidate, context: int) -> Plan:
    return Plan(
        node_id=chosen.node_id,
        device_ids=chosen.device_ids,
        claims_mib=chosen.claims_mib,
        context=context,
        tensor_split=chosen.tensor_split,
        evicts=chosen.evicts,
    )
