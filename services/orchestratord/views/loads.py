"""Models on their way into memory, and those that did not get there."""

from dataclasses import dataclass

from orchestratord.core.facts.loads import Load, LoadFailure
from orchestratord.core.placement.load_progress import describe
from orchestratord.core.state import BrainState


@dataclass(frozen=True, slots=True)
class LoadView:
    """`message` is what the load does now."""

    load: Load
    message: str


@dataclass(frozen=True, slots=True)
class LoadFailureView:
    failure: LoadFailure
    ago_s: float


def views(state: BrainState) -> list[LoadView]:
    loads = sorted(state.loads.values(), key=lambda load: load.load_id)
    return [LoadView(load, describe(state, load)) for load in loads]


def failures(state: BrainState, now: float) -> list[LoadFailureView]:
    """By model. `now` is on the brain's clock."""
    return [LoadFailureView(failure, now - failure.at) for _, failure in sorted(state.load_failures.items())]
