"""The JSON Schema of the settings file, and every example of such a file that a document shows."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import document_settings
from llorch.settings import KNOWN_SECTIONS, DaemonSettings, read
from orchestratord.model_sources import models_of_file

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(ROOT.glob("docs/examples/*.toml"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHOWN = [
    *(pytest.param(file.read_text(), id=file.name) for file in EXAMPLES),
    *(
        pytest.param(block, id=f"{document.name} {number}")
        for document in DOCUMENTS
        for number, block in enumerate(BLOCK.findall(document.read_text()), 1)
    ),
]


@pytest.fixture(scope="module")
def schema() -> Any:
    return json.loads(document_settings.SCHEMA.read_text())


def faults(schema: Any, settings: str) -> list[str]:
    return [error.message for error in Draft202012Validator(schema).iter_errors(tomllib.loads(settings))]


def test_the_schema_is_one_and_speaks_of_every_section_that_daemons_read(schema: Any) -> None:
    Draft202012Validator.check_schema(schema)
    assert schema["properties"].keys() >= KNOWN_SECTIONS


@pytest.mark.parametrize("daemon", document_settings.DAEMONS, ids=lambda daemon: daemon.section)
def test_every_setting_is_in_the_schema_with_its_meaning(schema: Any, daemon: type[DaemonSettings]) -> None:
    described = schema["properties"][daemon.section]["properties"]
    assert described.keys() == daemon.model_fields.keys() - {"config"}
    assert all(setting["description"] for setting in described.values())


@pytest.mark.req("OPS-6006")
@pytest.mark.parametrize("settings", SHOWN)
def test_every_example_of_a_settings_file_fits_the_schema(schema: Any, settings: str) -> None:
    assert faults(schema, settings) == []


@pytest.mark.req("OPS-6006")
@pytest.mark.parametrize("settings", SHOWN)
def test_every_example_of_a_settings_file_is_read_by_every_daemon(tmp_path: Path, settings: str) -> None:
    file = tmp_path / "llama-orch.toml"
    file.write_text(settings)
    for daemon in document_settings.DAEMONS:
        read(daemon, ["--config", str(file)], {"HOME": "/nowhere"})
    assert len(list(models_of_file(file))) == len(tomllib.loads(settings).get("models", {}))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_an_example_tells_editors_where_its_schema_is(file: Path) -> None:
    found = re.match(r"#:schema (\S+)\n", file.read_text())
    assert found
    assert (file.parent / found[1]).resolve() == document_settings.SCHEMA


@pytest.mark.req("OPS-6006")
@pytest.mark.parametrize(
    "settings",
    [
        "[pool_manger]",
        "models_dir = 1",
        'model_dir = "/srv/models"',
        '[pool_manager]\nreserve = "1"',
        "[pool_manager]\nallow_cpu = 1",
        '[pool_manager]\npools = { big = "0" }',
        "[pool_manager]\nreserve_mib = { 0 = -1 }",
        "[orchestrator]\nqueue_capacity = -5",
        "[models.coder]\nslots = 0",
        "[models.coder]\nvram_claim = 11",
        '[models.coder]\nidle_unload = "soon"',
        '[apps.aider]\nweight = "much"',
        '[[assignments]]\nmodel = "coder"',
        '[models.coder]\nsource = "file:/a.gguf"\ncache_type = "f32"',
        '[logging]\nlevel = "loud"',
        '[orchestrator]\nconfig = "another.toml"',
    ],
)
def test_what_daemons_refuse_does_not_fit_the_schema(schema: Any, settings: str) -> None:
    assert faults(schema, settings)


def test_the_check_of_generated_files_notices_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "llama-orch.schema.json"
    monkeypatch.setattr(document_settings, "SCHEMA", stale)
    stale.write_text("{}")
    assert document_settings.main(["--check"]) == 1
    assert "llama-orch.schema.json" in capsys.readouterr().err
