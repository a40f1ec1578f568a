"""What was learnt of models, files, nodes and apps goes with them, from the brain and from the store.

News of them may come later: of a run that still ended, of a worker that still got ready. What is in the catalog no more
learns nothing, so each of these is asked for where something is learnt.
"""

from orchestratord.core.effects import PersistRecord
from orchestratord.core.facts.admission import Waiting
from orchestratord.core.facts.timers import TimerKind
from orchestratord.core.placement.lanes import lane_of_place
from orchestratord.core.state import BrainState

UNCLAIMED_FILES_KEPT = 256
"""Files that were pulled or looked at, and that no model names (yet): what is known of the last so many is kept."""


def model_gone(state: BrainState, name: str) -> None:
    """After its tasks have ended."""
    state.demand.forget(name)
    state.load_failures.pop(name, None)
    state.refusals.pop(name, None)
    state.timers.cancel(name, TimerKind.RETRY_LOAD, TimerKind.FORGET_FAILURE)
    state.to_look_at.pop(name, None)
    for lane in [lane for lane in state.waits_told if lane.model == name]:
        del state.waits_told[lane]
    state.queue.forget_model(name)
    state.rates.forget_model(name)
    rates_forgotten(state)


def file_left(state: BrainState, source: str) -> None:
    """A model has another file now, or is gone. Perhaps a further one has this file."""
    if state.catalog.by_source(source):
        return
    if (facts := state.catalog.forget_source(source)) is not None:
        state.emit(PersistRecord(facts, None))
    for calibration in state.calibrations.forget_source(source):
        state.emit(PersistRecord(calibration, None))


def unclaimed_files(state: BrainState) -> None:
    """Not in the first minutes after a start: the nodes may not have come that offer models with these files."""
    if state.now >= state.recovering_until:
        for source in state.catalog.unclaimed_sources()[:-UNCLAIMED_FILES_KEPT]:
            file_left(state, source)


def node_gone(state: BrainState, node_id: str) -> None:
    """It was forgotten, or its host has another name."""
    for name, refusals in list(state.refusals.items()):
        refusals.pop(node_id, None)
        if not refusals:
            del state.refusals[name]
    state.timers.cancel(node_id, TimerKind.NODE_GRACE)
    state.rates.forget_node(node_id)
    rates_forgotten(state)


def app_gone(state: BrainState, name: str) -> None:
    state.queue.forget_app(name)
    state.rates.answers.forget_app(name)


def wait_over(state: BrainState, place: Waiting) -> None:
    """A task waits no more: what those of its lane were told goes with the last of them, and what was to be loaded for
    them alone is looked at again.
    """
    if not state.apps.has(place.app):
        state.queue.forget_returns(place.app)
    if not state.queue.has_lane(place):
        state.look_again |= place.model in state.loads
        state.waits_told.pop(lane_of_place(place), None)
        if not state.catalog.has(place.model):
            state.queue.forget_model(place.model)


def rates_forgotten(state: BrainState) -> None:
    for rate in state.rates.take_forgotten():
        state.emit(PersistRecord(rate, None))
