"""Tables of the settings file beside settings: models, then apps, then the assignments that name both."""

from collections.abc import Iterator
from pathlib import Path

from orchestratord.app_sources import apps_of_file
from orchestratord.assignment_sources import assignments_of_file
from orchestratord.core.events import AppDefined, AssignmentSet, ModelRegistered
from orchestratord.model_sources import models_of_file
from orchestratord.settings_tables import Heading


def events_of_file(
    file: Path | None,
) -> Iterator[tuple[Heading, ModelRegistered | AppDefined | AssignmentSet]]:
    """With the table that each comes from. Raises SettingsError for a table that can't be right."""
    yield from models_of_file(file)
    yield from apps_of_file(file)
    yield from assignments_of_file(file)
