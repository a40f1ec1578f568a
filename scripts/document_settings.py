"""Write what documents the settings from their classes, so that they can't drift apart.

These are the tables of docs/configuration.md, and docs/llama-orch.schema.json, by which editors check a settings file.
Run by `make gen`; `--check` only tells whether both are up to date.
"""

import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gatewayd.settings import GatewaySettings
from generated_documents import in_cell, markdown, write_or_check
from llorch.settings import DaemonSettings
from orchestratord.app_sources import AppTable
from orchestratord.assignment_sources import AssignmentTable
from orchestratord.day_file import SimulatedCard, SimulatedHost, SimulatedModel, SimulatedWork
from orchestratord.model_sources import ModelTable
from orchestratord.settings import OrchestratorSettings
from pool_managerd.settings import PoolManagerSettings
from settings_schema import Tables, schema_text
from worker_orcd.settings import WorkerSettings

DOCS = Path(__file__).resolve().parent.parent / "docs"
DOCUMENT = DOCS / "configuration.md"
SCHEMA = DOCS / "llama-orch.schema.json"
DAEMONS: tuple[type[DaemonSettings], ...] = (
    OrchestratorSettings,
    PoolManagerSettings,
    GatewaySettings,
    WorkerSettings,
)


def tables() -> dict[str, str]:
    """The tables by the names that the markers in the document give them."""
    own = {daemon.section: _own_fields(daemon) for daemon in DAEMONS}
    documented = {"common": _daemon_table("daemon", DaemonSettings.model_fields)}
    documented |= {section: _daemon_table(section, fields) for section, fields in own.items()}
    documented["models"] = _model_table(ModelTable)
    documented["apps"] = _model_table(AppTable)
    documented["assignments"] = _model_table(AssignmentTable)
    documented["simulate.hosts"] = _model_table(SimulatedHost)
    documented["simulate.cards"] = _model_table(SimulatedCard)
    documented["simulate.models"] = _model_table(SimulatedModel)
    documented["simulate.work"] = _model_table(SimulatedWork)
    return documented


def filled_in(document: str) -> str:
    """`document` with every table between its markers, `<!-- settings: NAME -->` and `<!-- end -->`."""
    for name, table in tables().items():
        start = f"<!-- settings: {name} -->\n"
        before, found, rest = document.partition(start)
        _, end, after = rest.partition("<!-- end -->")
        if not (found and end):
            raise ValueError(f"{DOCUMENT.name} has no place for the settings of {name}: {start.strip()} … <!-- end -->")
        document = f"{before}{start}\n{table}\n{end}{after}"
    return document


def _own_fields(daemon: type[DaemonSettings]) -> dict[str, FieldInfo]:
    return {name: field for name, field in daemon.model_fields.items() if name not in DaemonSettings.model_fields}


def _daemon_table(section: str, fields: Mapping[str, FieldInfo]) -> str:
    rows = [
        (f"`{name}`", f"`--{name.replace('_', '-')}`", f"`{_variable(section, name)}`", *_facts(field))
        for name, field in fields.items()
    ]
    return markdown(("Key", "Flag", "Environment", "Default", "Range", "Meaning"), rows)


def _variable(section: str, name: str) -> str:
    return "LLORCH_CONFIG" if name == "config" else f"LLORCH_{section.upper()}_{name.upper()}"


def _model_table(model: type[BaseModel]) -> str:
    rows = [(f"`{name}`", *_facts(field)) for name, field in model.model_fields.items()]
    return markdown(("Key", "Default", "Range", "Meaning"), rows)


def _facts(field: FieldInfo) -> tuple[str, str, str]:
    return _default(field), _range(field), in_cell(field.description or "")


def _range(field: FieldInfo) -> str:
    """What the class itself holds a value to; what only its description says is not repeated."""
    choices = _choices(field.annotation)
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    bounds = [_bound(said) for said in field.metadata]
    return ", ".join(bound for bound in bounds if bound)


def _bound(said: Any) -> str:
    match said:
        case Ge(ge=least):
            return f"≥ {least}"
        case Gt(gt=least):
            return f"> {least}"
        case Le(le=most):
            return f"≤ {most}"
        case Lt(lt=most):
            return f"< {most}"
    return ""


def _choices(annotation: Any) -> tuple[str, ...]:
    """Of a Literal or an enum, also where the value may be left out."""
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return tuple(str(member.value) for member in annotation)
    within = [each for each in get_args(annotation) if each is not NoneType]
    return _choices(within[0]) if isinstance(annotation, UnionType) and len(within) == 1 else ()


def _default(field: FieldInfo) -> str:
    if field.default_factory in (list, dict, tuple):
        return "none"
    if field.default_factory is not None:
        return "see its meaning"
    value: Any = field.default
    if value is PydanticUndefined:
        return "required"
    if value is None or value in ("", "{}", [], {}, ()):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def wanted() -> dict[Path, str]:
    """Every file that is made from the settings classes, with its content."""
    tables = Tables(ModelTable, AppTable, AssignmentTable, SimulatedHost, SimulatedCard, SimulatedModel, SimulatedWork)
    return {DOCUMENT: filled_in(DOCUMENT.read_text()), SCHEMA: schema_text(DAEMONS, tables)}


def main(arguments: list[str]) -> int:
    return write_or_check(wanted(), "the settings classes", arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
