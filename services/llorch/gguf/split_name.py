"""The names of the files of a split model: NAME-00001-of-00003.gguf. Pure."""

import re
from dataclasses import dataclass

_SPLIT_NAME = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")


@dataclass(frozen=True, slots=True)
class SplitName:
    """`number` counts from 1."""

    stem: str
    number: int
    count: int

    def all(self) -> list[str]:
        """The names of all files of the model, the first one first."""
        return [f"{self.stem}-{number:05}-of-{self.count:05}.gguf" for number in range(1, self.count + 1)]


def split_name(file_name: str) -> SplitName | None:
    """None for a name that is no part of a split model, or an impossible one."""
    found = _SPLIT_NAME.match(file_name)
    if found is None:
        return None
    name = SplitName(found["stem"], int(found["number"]), int(found["count"]))
    return name if 1 <= name.number <= name.count else None
