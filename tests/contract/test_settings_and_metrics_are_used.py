"""No setting without effect, no metric without a source: found by name in the syntax trees of `services/`."""

import ast
import dataclasses
import functools
from pathlib import Path

import pytest

import document_settings
from llorch.options.assignment import RuleTerms
from llorch.settings import DaemonSettings
from orchestratord.app_sources import AppTable
from orchestratord.assignment_sources import AssignmentTable
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.model import VALUES
from orchestratord.metrics.tallies import Tallies
from orchestratord.model_sources import ModelTable
from worker_orcd.engine_info import EngineStats

SERVICES = Path(__file__).resolve().parents[2] / "services"
READ_BY_NAME = frozenset({"config"})
"""`llorch.settings` looks for the settings file before there are settings."""


@functools.cache
def trees(folder: str) -> tuple[tuple[Path, ast.Module], ...]:
    return tuple((path, ast.parse(path.read_text())) for path in sorted((SERVICES / folder).rglob("*.py")))


def owner(node: ast.expr) -> str:
    """`settings` of `self._settings.bind`, `self` of `self.bind`."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.strip("_")
    return ""


@functools.cache
def read_of(folder: str, *owners: str) -> frozenset[str]:
    """Attributes that are read of something with one of these names; of `self` in the modules of settings alone."""
    found: set[str] = set()
    for path, tree in trees(folder):
        names = {*owners, "self"} if path.stem == "settings" else set(owners)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and owner(node.value) in names:
                found.add(node.attr)
    return frozenset(found)


@pytest.mark.parametrize("daemon", document_settings.DAEMONS, ids=lambda daemon: daemon.section)
def test_every_setting_of_a_daemon_is_read(daemon: type[DaemonSettings]) -> None:
    read = read_of(daemon.__module__.partition(".")[0], "settings") | read_of("llorch", "settings")
    assert daemon.model_fields.keys() - read - READ_BY_NAME == set()


def test_every_key_of_the_table_of_an_assignment_is_read() -> None:
    terms = {field.name for field in dataclasses.fields(RuleTerms)}
    assert AssignmentTable.model_fields.keys() - read_of("orchestratord", "table") == terms


def test_the_table_of_a_model_says_what_can_be_said_of_one() -> None:
    values = {*VALUES, *(value.removesuffix("_s").removesuffix("_mib") for value in VALUES)}
    assert ModelTable.model_fields.keys() - values == set()


def test_the_table_of_an_app_is_an_app() -> None:
    assert AppTable.model_fields.keys() <= {field.name for field in dataclasses.fields(App)}


def test_everything_that_is_tallied_is_counted_when_it_happens() -> None:
    tree = ast.parse((SERVICES / "orchestratord" / "metrics" / "watcher.py").read_text())
    counted = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and owner(node.value) == "tallies"
    }
    assert vars(Tallies()).keys() - counted == set()


def test_every_figure_of_an_engine_is_told_by_one() -> None:
    told = {
        keyword.arg
        for _, tree in trees("worker_orcd/engines")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and owner(node.func) == EngineStats.__name__
        for keyword in node.keywords
    }
    assert {field.name for field in dataclasses.fields(EngineStats)} - told == set()


def test_what_is_not_read_is_found() -> None:
    assert "nothing_reads_this" not in read_of("orchestratord", "settings")
    assert "bind" in read_of("orchestratord", "settings")
