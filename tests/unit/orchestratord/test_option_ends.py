"""Apps and rules have the same limits, whether a call or the settings file says them."""

from pathlib import Path
from typing import Any

import pytest

from llama_orch.v2 import app_pb2, assignment_pb2
from llorch.errors import InvalidArgument
from llorch.options.app import APP
from llorch.options.assignment import ASSIGNMENT
from llorch.options.option import BYTES, CHARACTERS, MOST_UINT32, Option
from llorch.settings import SettingsError
from orchestratord.app_sources import apps_of_file
from orchestratord.assignment_sources import assignments_of_file
from orchestratord.convert.apps import to_app
from orchestratord.convert.assignments import to_draft

NUMBERS = [
    pytest.param(table, name, id=name)
    for table in (APP, ASSIGNMENT)
    for name, option in table.items()
    if option.allowed and not option.entries and option.unit not in (BYTES, CHARACTERS)
]


def by_call(table: object, name: str, value: float) -> object:
    said: dict[str, Any] = {name: value}
    if table is APP:
        return getattr(to_app(app_pb2.App(app="aider", **said)), name)
    mode = assignment_pb2.ASSIGNMENT_MODE_PIN
    return getattr(to_draft(assignment_pb2.Assignment(model="m", targets=["garage"], mode=mode, **said)), name)


def by_file(table: object, name: str, value: float, folder: Path) -> object:
    file = folder / "settings.toml"
    if table is APP:
        file.write_text(f"[apps.aider]\n{name} = {value}\n")
        return getattr(next(apps_of_file(file))[1].app, name)
    file.write_text(f'[[assignments]]\nmodel = "m"\nto = ["garage"]\nmode = "pin"\n{name} = {value}\n')
    return getattr(next(assignments_of_file(file))[1].draft, name)


def ends(option: Option) -> tuple[float, float]:
    """Whole numbers for what is counted."""
    assert option.allowed is not None
    return option.allowed.low, option.allowed.high


@pytest.mark.parametrize(("table", "name"), NUMBERS)
def test_both_ends_are_taken(table: dict[str, Option], name: str, tmp_path: Path) -> None:
    for value in ends(table[name]):
        assert by_call(table, name, value) == pytest.approx(value)
        assert by_file(table, name, value, tmp_path) == value


@pytest.mark.parametrize(("table", "name"), NUMBERS)
def test_what_is_beyond_an_end_is_refused_by_name(table: dict[str, Option], name: str, tmp_path: Path) -> None:
    low, high = ends(table[name])
    beyond = [] if high == MOST_UINT32 else [high + 1]  # a message can't hold more than that
    for value in beyond + ([] if isinstance(low, int) else [low * 0.9]):
        with pytest.raises(InvalidArgument, match=name):
            by_call(table, name, value)
    for value in (low - 1, high + 1):
        with pytest.raises(SettingsError, match=name):
            by_file(table, name, value, tmp_path)
