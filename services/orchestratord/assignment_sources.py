"""Assignments of the settings file. They may name nodes that have not been seen yet."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, create_model

from llorch.assignment_mode import Mode, all_meanings
from llorch.identifiers import check_id
from llorch.option_field import option_fields
from llorch.options.assignment import ASSIGNMENT, RuleTerms
from llorch.options.option import values_of
from orchestratord.core.events import AssignmentSet
from orchestratord.core.facts.assignments import Assignment
from orchestratord.core.facts.model import Origin
from orchestratord.settings_tables import Heading, SettingsTable, listed_tables

if TYPE_CHECKING:
    ModeWord = str
else:
    ModeWord = Literal[tuple(mode.word for mode in Mode)]


class _RuleInWords(SettingsTable):
    """What the settings file has under a name or in a form of its own."""

    id: str = Field("", description="Name of the rule; made from what it says if there is none.")
    model: str = Field("", description="The model that it is about; else every model of the app.")
    app: str = Field("", description="The app that it is about; else every app.")
    to: tuple[str, ...] = Field(
        description="Places: a node, a GPU such as garage/3090, GPUs together such as garage/3090+3060, or a pool."
    )
    mode: ModeWord = Field(description=all_meanings())


AssignmentTable = create_model(
    "AssignmentTable",
    __base__=_RuleInWords,
    __doc__="One table [[assignments]].",
    **option_fields(RuleTerms, ASSIGNMENT),
)


def assignments_of_file(file: Path | None) -> Iterator[tuple[Heading, AssignmentSet]]:
    """With the place of each. Raises SettingsError that names the file, the table and the key."""
    for heading, _, table in listed_tables(file, "assignments", AssignmentTable):
        with heading:
            for key, value in (("id", table.id), ("model", table.model), ("app", table.app)):
                if value:
                    check_id(value, key)
        yield heading, AssignmentSet(_draft(table))


def _draft(table: _RuleInWords) -> Assignment:
    return Assignment(
        assignment_id=table.id,
        model=table.model,
        app=table.app,
        targets=table.to,
        mode=Mode[table.mode.upper()],
        origin=Origin.FILE,
        **values_of(RuleTerms, table),
    )
