"""Apps of the settings file. Their keys are made by a call."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from llorch.identifiers import check_id
from llorch.option_field import option_field
from llorch.options.app import APP, DEFAULT_WEIGHT
from llorch.options.task import DEFAULT_PRIORITY
from orchestratord.core.events import AppDefined
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.model import Origin
from orchestratord.settings_tables import Heading, SettingsTable, named_tables


class AppTable(SettingsTable):
    """One table [apps.NAME]."""

    models: dict[str, str] = Field(
        {}, description='The app\'s own names for models, such as { "gpt-4o-mini" = "small" }.'
    )
    priority: str = option_field(DEFAULT_PRIORITY, APP["priority"])
    weight: float = option_field(DEFAULT_WEIGHT, APP["weight"])
    max_concurrent_tasks: int = option_field(0, APP["max_concurrent_tasks"])
    max_tokens_per_minute: int = option_field(0, APP["max_tokens_per_minute"])


def apps_of_file(file: Path | None) -> Iterator[tuple[Heading, AppDefined]]:
    """With the place of each. Raises SettingsError that names the file, the table and the key."""
    for heading, name, table in named_tables(file, "apps", AppTable):
        with heading:
            for own_name, model in table.models.items():
                check_id(own_name, "models")
                check_id(model, f'models."{own_name}"')
        yield heading, AppDefined(App(name=name, origin=Origin.FILE, **table.model_dump()))
