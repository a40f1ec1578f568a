"""The JSON Schema of the settings file, made from the settings classes. `document_settings.py` writes it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from llorch.settings import TOP_KEYS, DaemonSettings

_Node = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tables:
    """One table of each kind that the file may have any number of."""

    models: type[BaseModel]
    apps: type[BaseModel]
    assignments: type[BaseModel]
    simulated_hosts: type[BaseModel]
    simulated_cards: type[BaseModel]
    simulated_models: type[BaseModel]
    simulated_work: type[BaseModel]


def schema_text(daemons: Iterable[type[DaemonSettings]], tables: Tables) -> str:
    return json.dumps(schema(daemons, tables), indent=2, ensure_ascii=False) + "\n"


def schema(daemons: Iterable[type[DaemonSettings]], tables: Tables) -> _Node:
    sections = {daemon.section: _section(daemon) for daemon in daemons}
    level = {**_fields(DaemonSettings)["log_level"], "description": "How much all daemons log."}
    others: _Node = {
        "models": {
            "description": "One table for each model, [models.NAME]; NAME is the name that clients use.",
            "type": "object",
            "additionalProperties": _table(tables.models),
        },
        "apps": {
            "description": "One table for each program that has a key of its own, [apps.NAME].",
            "type": "object",
            "additionalProperties": _table(tables.apps),
        },
        "assignments": {
            "description": "Placement rules, one table [[assignments]] for each rule.",
            "type": "array",
            "items": _table(tables.assignments),
        },
        "simulate": {
            "description": "What `llorch simulate` needs beside models, apps and assignments. Daemons do not read it.",
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "hosts": {
                    "description": "One table for each machine, [simulate.hosts.NAME].",
                    "type": "object",
                    "additionalProperties": _table(tables.simulated_hosts),
                },
                "cards": {
                    "description": "One table for each card whose speed is not known, [simulate.cards.NAME].",
                    "type": "object",
                    "additionalProperties": _table(tables.simulated_cards),
                },
                "models": {
                    "description": "One table for each model whose speed is known, [simulate.models.NAME].",
                    "type": "object",
                    "additionalProperties": _table(tables.simulated_models),
                },
                "work": {
                    "description": "Tasks that come, one table [[simulate.work]] for each kind.",
                    "type": "array",
                    "items": _table(tables.simulated_work),
                },
            },
        },
        "logging": {
            "description": "What all daemons log.",
            "type": "object",
            "additionalProperties": False,
            "properties": {"level": level},
        },
    }
    fields = {name: field for section in sections.values() for name, field in section["properties"].items()}
    tops = {name: fields[name] for name in sorted(TOP_KEYS)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "llama-orch.toml",
        "description": "The settings file of llama-orch. One file serves all daemons of a machine.",
        "type": "object",
        "additionalProperties": False,
        "properties": tops | sections | others,
    }


def _section(daemon: type[DaemonSettings]) -> _Node:
    """A file may set everything but which file is read. Nothing is required of it: flags and environment are there."""
    fields = {name: field for name, field in _fields(daemon).items() if name != "config"}
    return {
        "description": f"Settings of {daemon.section.replace('_', ' ')}s.",
        "type": "object",
        "additionalProperties": False,
        "properties": fields,
    }


def _table(model: type[BaseModel]) -> _Node:
    whole = model.model_json_schema()
    return {
        "description": f"{model.__doc__}",
        "type": "object",
        "additionalProperties": False,
        "required": whole.get("required", []),
        "properties": _fields(model),
    }


def _fields(model: type[BaseModel]) -> dict[str, _Node]:
    whole = model.model_json_schema()
    words = {f"#/$defs/{name}": _words(model, definition) for name, definition in whole.get("$defs", {}).items()}
    return {name: _without_noise(field, words) for name, field in whole["properties"].items()}


def _words(model: type[BaseModel], definition: _Node) -> _Node:
    """An enum as the list of its values."""
    if "enum" not in definition:
        raise NotImplementedError(f"{model.__name__} has nested models; teach this script to carry their schemas over")
    return {"enum": definition["enum"], "type": definition["type"]}


def _without_noise(field: _Node, words: Mapping[str, _Node]) -> _Node:
    """TOML has no null, and titles made from names add nothing."""
    kept = {key: value for key, value in field.items() if key != "title" and (key, value) != ("default", None)}
    kept |= words.get(kept.pop("$ref", ""), {})
    choices: list[_Node] = [choice for choice in kept.pop("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        return words.get(choices[0].get("$ref", ""), choices[0]) | kept
    return kept | ({"anyOf": choices} if choices else {})
