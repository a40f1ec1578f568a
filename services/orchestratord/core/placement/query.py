"""What is asked of a decision, and the places that it is asked about."""

from dataclasses import dataclass

from orchestratord.core.catalog import Model
from orchestratord.core.fleet import Device, Node, Worker
from orchestratord.core.placement.rules import Lane, Rules
from orchestratord.core.state import BrainState
from orchestratord.core.targets import Place


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """A model that needs a worker. `context` is what one request may use, in tokens; `only` a place that somebody named.

    The tokens are of the task at the head of those who wait, as far as they are known.
    """

    model: Model
    lane: Lane
    context: int
    excluded_nodes: frozenset[str] = frozenset()
    only: tuple[Place, ...] = ()
    prompt_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Query:
    """A request with everything around it that filters look at. `state` is read and never changed."""

    state: BrainState
    request: LoadRequest
    rules: Rules

    @property
    def model(self) -> Model:
        return self.request.model


@dataclass(slots=True)
class Site:
    """Devices of one node, in the order in which an engine would see them; with `worker`, what runs there already.

    Filters of devices get one device at a time.
    """

    node: Node
    devices: tuple[Device, ...]
    device_ids: tuple[str, ...]
    worker: Worker | None = None

    @property
    def name(self) -> str:
        return " + ".join(device.name for device in self.devices) or self.node.node_id
