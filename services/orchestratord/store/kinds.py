"""Which records there are. What is not named here can't be kept."""

from dataclasses import dataclass

from orchestratord.core.facts.apps import App
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.calibration import Calibration
from orchestratord.core.facts.decision import DecisionRecord
from orchestratord.core.facts.drains import Drain
from orchestratord.core.facts.known_node import KnownNode
from orchestratord.core.facts.model import ModelRecord, SourceFacts
from orchestratord.core.facts.records import Record
from orchestratord.core.facts.released import ReleasedDevice
from orchestratord.core.facts.sessions import Session
from orchestratord.core.learnt.rates import Rate


@dataclass(frozen=True, slots=True)
class Kind:
    """`volatile`: it may lag behind by seconds and is worth no refusal. `keep_last`: only so many, the newest.

    `name` is written into the store and never changes.
    """

    name: str
    type: type
    volatile: bool = False
    keep_last: int | None = None


KINDS: tuple[Kind, ...] = (
    Kind("models", ModelRecord),
    Kind("sources", SourceFacts, volatile=True),
    Kind("apps", App),
    Kind("sessions", Session, volatile=True),
    Kind("calibrations", Calibration, volatile=True),
    Kind("rates", Rate, volatile=True),
    Kind("released_devices", ReleasedDevice),
    Kind("assignments", Assignment),
    Kind("nodes", KnownNode),
    Kind("drains", Drain),
    Kind("decisions", DecisionRecord, volatile=True, keep_last=1000),
)

BY_TYPE = {kind.type: kind for kind in KINDS}
BY_NAME = {kind.name: kind for kind in KINDS}


def kind_of(record: Record) -> Kind:
    return BY_TYPE[type(record)]
