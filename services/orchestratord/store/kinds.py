"""Which records there are. What is not named here can't be kept."""

from dataclasses import dataclass

from orchestratord.core.apps import App
from orchestratord.core.assignments import Assignment
from orchestratord.core.calibration import Calibration
from orchestratord.core.catalog import ModelRecord, SourceFacts
from orchestratord.core.placement.decision import DecisionRecord
from orchestratord.core.rates import Rate
from orchestratord.core.records import Record
from orchestratord.core.released import ReleasedDevice
from orchestratord.core.sessions import Session


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
    Kind("decisions", DecisionRecord, volatile=True, keep_last=1000),
)

BY_TYPE = {kind.type: kind for kind in KINDS}
BY_NAME = {kind.name: kind for kind in KINDS}


def kind_of(record: Record) -> Kind:
    return BY_TYPE[type(record)]
