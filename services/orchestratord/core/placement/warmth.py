"""How much of a task's prompt a worker need not evaluate."""

from orchestratord.core.facts.task import TaskRequest
from orchestratord.core.state import BrainState


def warm_tokens(state: BrainState, request: TaskRequest, worker_id: str) -> int:
    """By its session, whose last answer is there as well, or by prompts of others that begin alike."""
    of_session = state.sessions.warm_tokens(request.app, request.session_id, worker_id)
    share = state.warmth.share(request.task_id, worker_id)
    if share and _goes_on_from_whole_prompts(state, request.model):
        share = state.warmth.share_in_one(request.task_id, worker_id)
    if not share:
        return of_session
    return max(of_session, int(share * state.rates.prompt_tokens(request.model, request.prompt_tokens)))


def _goes_on_from_whole_prompts(state: BrainState, name: str) -> bool:
    """A recurrent state is that of all tokens so far: it can't be cut back to where two prompts part."""
    model = state.catalog.find(name)
    return model is not None and model.facts is not None and any(layer.state_bytes for layer in model.facts.layers)
