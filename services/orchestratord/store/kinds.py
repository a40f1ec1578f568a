"""Which records there are. What is not named here can't be kept."""

from dataclasses import dataclass

from orchestratord.core.catalog import ModelRecord, SourceFacts
from orchestratord.core.records import Record


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
)

BY_TYPE = {kind.type: kind for kind in KINDS}
BY_NAME = {kind.name: kind for kind in KINDS}


def kind_of(record: Record) -> Kind:
    return BY_TYPE[type(record)]
