"""Models on their way into memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from llorch.errors import Reason
from orchestratord.core.facts.ledger import DeviceKey
from orchestratord.core.facts.rules import Lane
from orchestratord.core.facts.targets import Place


class LoadPhase(Enum):
    """WAITING: for a place. Only a load that was asked for waits; otherwise the tasks that need it wait."""

    WAITING = auto()
    STAGING = auto()
    MAKING_ROOM = auto()
    STARTING = auto()


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a load goes, and what it takes there: MiB and share per device, tokens that one request may use.

    `evicts` are workers that have to leave first.
    """

    node_id: str
    device_ids: tuple[str, ...]
    claims_mib: tuple[int, ...]
    context: int
    tensor_split: tuple[float, ...] = ()
    evicts: tuple[str, ...] = ()

    @property
    def claims(self) -> Mapping[DeviceKey, int]:
        keys = ((self.node_id, device_id) for device_id in self.device_ids)
        return dict(zip(keys, self.claims_mib, strict=True))


@dataclass(slots=True)
class Load:
    """One attempt to load a model. `load_id` becomes the worker's id, and memory is reserved under it; before, while
    workers leave for it, promised.

    `source` is what the model's file was when the load began, `shape` all else that it was to be loaded with. `lane` is
    what may wait for it. `waits_for` are workers whose memory has to return first. `asked`: a caller wants the model
    loaded, whether tasks wait or not; `places` are then the only ones that will do. `payer` is the app
    whose task was first when it began, None where no task waits for it; `share` the part of the devices that it takes,
    `charged_s` the device-seconds that the app was charged with.
    """

    load_id: str
    model: str
    source: str
    lane: Lane
    since: float
    phase: LoadPhase = LoadPhase.WAITING
    plan: Plan | None = None
    shape: tuple[object, ...] = ()
    waits_for: set[str] = field(default_factory=set)
    asked: bool = False
    places: tuple[Place, ...] = ()
    payer: str | None = None
    share: float = 0.0
    charged_s: float = 0.0

    @property
    def node_id(self) -> str:
        return self.plan.node_id if self.plan else ""


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """The last load of a model that failed, and how often in a row: the brain waits longer each time by itself."""

    model: str
    node_id: str
    reason: Reason
    message: str
    at: float
    in_a_row: int
    worker_id: str = ""


@dataclass(slots=True)
class Loads:
    """By id and by model. `name in loads` tells whether some load of that model is under way."""

    _by_id: dict[str, Load] = field(default_factory=dict)
    _by_model: dict[str, dict[str, Load]] = field(default_factory=dict)

    def __contains__(self, model: str) -> bool:
        return model in self._by_model

    def __len__(self) -> int:
        return len(self._by_id)

    def values(self) -> Iterator[Load]:
        return iter(list(self._by_id.values()))

    def get(self, load_id: str) -> Load | None:
        return self._by_id.get(load_id)

    def of_model(self, model: str) -> list[Load]:
        return list(self._by_model.get(model, {}).values())

    def on_node(self, node_id: str) -> list[Load]:
        return [load for load in self._by_id.values() if load.node_id == node_id]

    def add(self, load: Load) -> None:
        self._by_id[load.load_id] = load
        self._by_model.setdefault(load.model, {})[load.load_id] = load

    def remove(self, load_id: str) -> None:
        """Idempotent."""
        load = self._by_id.pop(load_id, None)
        if load is not None:
            of_model = self._by_model[load.model]
            del of_model[load_id]
            if not of_model:
                del self._by_model[load.model]
