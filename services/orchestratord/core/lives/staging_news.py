"""Tasks that wait for a model that is being downloaded are told the progress now and then."""

from orchestratord.core.effects import Narrate
from orchestratord.core.events import ModelComing
from orchestratord.core.facts.loads import LoadPhase
from orchestratord.core.state import BrainState

_MIB_PER_GIB = 1024


def coming(state: BrainState, event: ModelComing) -> None:
    for load in state.loads.values():
        if load.phase is LoadPhase.STAGING and (load.node_id, load.source) == (event.node_id, event.source):
            sentence = f"downloading {load.model} to {load.node_id}: {_how_far(event)}"
            state.emit(*(Narrate(task_id, sentence) for task_id in state.queue.waiting_for(load.model)))


def _how_far(event: ModelComing) -> str:
    total = "" if event.total_mib is None else f" of {event.total_mib / _MIB_PER_GIB:.1f}"
    speed = f", {event.mib_per_second:.0f} MiB/s" if event.mib_per_second >= 1 else ""
    return f"{event.done_mib / _MIB_PER_GIB:.1f}{total} GiB{speed}"
