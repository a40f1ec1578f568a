"""The names of a dataclass in the store, and how records of an earlier release are brought to the present format."""

import dataclasses
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

Stored = dict[str, Any]
"""A dataclass as JSON has it: its stored names, with values."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The names of a dataclass's fields on the disk, which never change, whatever Python calls them.

    `tag` tells it from others where there is a choice of dataclasses. `attributes` has what a field is called in
    Python, by its stored name, where the two differ.
    """

    type: type
    fields: tuple[str, ...]
    tag: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)

    def attribute(self, name: str) -> str:
        return self.attributes.get(name, name)

    def check(self) -> None:
        """Raises TypeError, with what to do, if the dataclass has other fields."""
        named = {self.attribute(name) for name in self.fields}
        present = {each.name for each in dataclasses.fields(self.type) if each.init}
        if unnamed := sorted(present - named):
            raise TypeError(
                f"{self.type.__name__}.{unnamed[0]} has no name on the disk: name it in its Shape, and if that is in "
                "store/names.py, say in CHANGES there what records have that were written before"
            )
        if gone := sorted(named - present):
            raise TypeError(
                f"a Shape names {self.type.__name__}.{gone[0]}, which does not exist: if Python calls it otherwise "
                "now, say so in the Shape's `attributes`; if it is gone, take it out, and if the Shape is in "
                "store/names.py, with an entry in CHANGES there out of the records that have it"
            )


@dataclass(frozen=True, slots=True)
class Change:
    """Brings a record of an earlier format to format `format`, at each place that holds a `type`.

    `apply` changes what it is given, and leaves alone what it has already made. `values` are what it adds. With
    `is_new_kind` there are no records of an earlier format.
    """

    format: int
    type: type
    apply: Callable[[Stored], None]
    values: Mapping[str, Any] = field(default_factory=dict)
    is_new_kind: bool = False


def began(number: int, kind: type) -> Change:
    """A kind of record that was kept first in format `number`: earlier stores have none, and earlier releases can't
    read one.
    """
    return Change(number, kind, _leave, is_new_kind=True)


def _leave(_: Stored) -> None:
    """There is none to change."""


def added(number: int, kind: type, /, **values: Any) -> Change:
    """Fields that were added in format `number`, with the JSON that earlier records get for them."""
    return Change(number, kind, partial(_add, values), values)


def _add(values: Stored, stored: Stored) -> None:
    stored.update(deepcopy(dict(values)) | stored)
