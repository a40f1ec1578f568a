"""Apps: what of them does not hold now."""

from orchestratord.core.facts.apps import App
from orchestratord.core.state import BrainState


def problems(state: BrainState, app: App) -> list[str]:
    """Of its own names for models: each model that none is called, once."""
    missing = sorted({model for model in app.models.values() if state.catalog.find(model) is None})
    return [f"no model is called '{model}' now" for model in missing]
