"""The request that a decision is about, and the places that it considers."""

from dataclasses import dataclass

from orchestratord.core.facts.model import Model
from orchestratord.core.facts.rules import Lane, Rules
from orchestratord.core.facts.targets import Place
from orchestratord.core.state import BrainState


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """A model that needs a worker. `context` is what one request may use, in tokens; `only` is a place that was named.

    The tokens are those of a task, as far as they are known. A length that is guessed from the text orders workers;
    only one that is exact excludes any. `for_tasks`: tasks wait for it, and not only a rule or a caller;
    `rank` is that of the first of them, 0 for the highest class.
    """

    model: Model
    lane: Lane
    context: int
    excluded_nodes: frozenset[str] = frozenset()
    only: tuple[Place, ...] = ()
    prompt_tokens: int = 0
    output_tokens: int = 0
    prompt_is_exact: bool = False
    for_tasks: bool = True
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Query:
    """A request with everything around it that filters look at. `state` is read and never changed."""

    state: BrainState
    request: LoadRequest
    rules: Rules

    @property
    def model(self) -> Model:
        return self.request.model
