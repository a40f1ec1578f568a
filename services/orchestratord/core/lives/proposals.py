"""Changes that callers ask for come into force when the store has them: one at a time, and all of a change or nothing.

Until then the state is what it was, so that a change that can't be kept leaves nothing to undo.
"""

from orchestratord.core.events import ChangeKept, ChangeNotKept
from orchestratord.core.state import BrainState


def kept(state: BrainState, _: ChangeKept) -> None:
    follow, state.proposed = state.proposed, None
    if follow is not None:
        follow()


def not_kept(state: BrainState, _: ChangeNotKept) -> None:
    state.proposed = None
