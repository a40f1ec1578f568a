"""The request that a decision is about, and the places that it considers."""

from dataclasses import dataclass

from llorch.device_kind import DeviceKind
from orchestratord.core.facts.fleet import Device, Node, Worker
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
        """The devices for people, without their node."""
        return " + ".join(device.name for device in self.devices) or self.node.node_id

    @property
    def where(self) -> str:
        """For example: GPU 0 (RTX 3090) + GPU 1 (RTX 3060) of garage."""
        labels = (_label(device) for device in self.devices)
        return f"{' + '.join(labels)} of {self.node.node_id}" if self.devices else self.node.node_id


def _label(device: Device) -> str:
    return "the CPU" if device.kind is DeviceKind.CPU else f"GPU {device.index} ({device.name})"
