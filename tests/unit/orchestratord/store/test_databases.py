"""Databases of every version that ever was are opened, and hold what their version has put into them.

`0001-first` was written by the first release that had a database, `0001` by the last one with the same tables.
"""

import dataclasses
import json
import sqlite3
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory

from llorch.errors import FailedPrecondition
from orchestratord.core.facts.apps import App
from orchestratord.core.facts.model import ModelRecord, SourceFacts
from orchestratord.core.facts.records import Record
from orchestratord.store import codec, migrate, names
from orchestratord.store.interface import AuditEntry, KeptTask
from orchestratord.store.kinds import KINDS, kind_of
from orchestratord.store.shape import Change, began
from orchestratord.store.sqlite import FILE, open_sqlite
from support import stored_database
from support.stored_database import AUDIT, DATABASES, FAILURE, RECORDS, REQUEST, RESULT, STOPPED, TASKS

ALL = sorted(path.stem for path in DATABASES.iterdir())
FORMATS = {"0001-first": 0, "0001": 1}
"""Of the records in databases whose names do not tell it."""

EVER_ADDED = [(change, name) for change in names.CHANGES for name in change.values]


def test_every_version_has_a_database() -> None:
    to_do = f"to make that of the present version: cd tests && python -m {stored_database.__name__}"
    steps = {step.revision for step in ScriptDirectory(str(migrate.MIGRATIONS)).walk_revisions()}
    assert {name.partition(".")[0] for name in ALL} >= steps, to_do
    assert {_format(name) for name in ALL} == set(range(names.FORMAT + 1)), to_do
    assert migrate.version() in ALL, to_do


def test_the_examples_are_of_every_kind_and_show_every_field_beside_its_default() -> None:
    assert {kind_of(record) for record in RECORDS} == set(KINDS)
    shown = {place for whole in (*RECORDS, *TASKS) for part in _parts(whole) for place in _beside_defaults(part)}
    assert shown >= {(shape.type, shape.attribute(name)) for shape in names.SHAPES for name in shape.fields}


@pytest.mark.parametrize("name", [name for name in ALL if name != "0001-first"])
async def test_a_database_of_an_earlier_version_has_what_was_put_into_it(tmp_path: Path, name: str) -> None:
    records, tasks, audit = await _contents_of(tmp_path, name)
    later = [change for change in names.CHANGES if change.format > _format(name)]
    unknown = {change.type for change in later if change.is_new_kind}
    assert records == [_before(later, record) for record in RECORDS if type(record) not in unknown]
    assert tasks == [_before(later, _in_tables_of(name, task)) for task in TASKS]
    assert audit == [*reversed(AUDIT)]


async def test_a_database_of_the_first_release_has_what_was_put_into_it(tmp_path: Path) -> None:
    """It had two kinds of records. What it knew of a model's file was of another form, and is learnt again."""
    records, tasks, audit = await _contents_of(tmp_path, "0001-first")
    (model,) = (record for record in RECORDS if isinstance(record, ModelRecord))
    facts = SourceFacts("file:/models/coder.gguf", digest="e3b0c44298fc1c149afbf4c8996fb924")
    assert records == [_before(names.CHANGES, model), facts]
    assert tasks == [_before(names.CHANGES, _in_tables_of("0001-first", task)) for task in TASKS]
    assert audit == [AUDIT[0]]


@pytest.mark.parametrize(("change", "name"), EVER_ADDED, ids=[f"{it.type.__name__}.{name}" for it, name in EVER_ADDED])
def test_a_record_of_before_a_field_came_says_what_the_change_says(change: Change, name: str) -> None:
    """Each field by itself: with the first tables they came one after the other."""
    change = dataclasses.replace(change, values={name: change.values[name]})
    concerned = [whole for whole in (*RECORDS, REQUEST, RESULT, FAILURE, STOPPED) if _before([change], whole) != whole]
    assert concerned
    for whole in concerned:
        stored = json.loads(codec.dump(type(whole), whole), object_hook=lambda part: _without(part, change))
        with pytest.raises(codec.Unreadable, match=f"{name}: the field is missing"):
            codec.load(type(whole), json.dumps(stored))
        upgraded = codec.upgrade(type(whole), json.dumps(stored), change.format - 1)
        assert codec.load(type(whole), upgraded) == _before([change], whole)


async def test_a_database_that_was_brought_up_to_date_stays_so(tmp_path: Path) -> None:
    once = await _contents_of(tmp_path, "0001-first")
    assert _copies_in(tmp_path) == [f"{FILE}.before-{migrate.version()}"]
    for copy in _copies_in(tmp_path):
        (tmp_path / copy).unlink()
    assert await _read(tmp_path) == once
    assert _copies_in(tmp_path) == []


async def test_records_of_an_earlier_format_are_changed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the tables are those of the present."""
    await stored_database.fill(tmp_path)
    calls: list[None] = []
    change = Change(names.FORMAT + 1, App, lambda stored: calls.append(stored.update(priority="later")))
    monkeypatch.setattr(names, "CHANGES", (*names.CHANGES, change))
    monkeypatch.setattr(names, "FORMAT", change.format)
    for _ in range(2):
        records, tasks, _ = await _read(tmp_path)
        assert [record.priority for record in records if isinstance(record, App)] == ["later"]
        assert (len(records), tasks) == (len(RECORDS), [*TASKS])
    assert len(calls) == 1
    assert _copies_in(tmp_path) == [f"{FILE}.before-{migrate.version()}"]


async def test_a_kind_of_record_that_began_later_raises_the_format_and_changes_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored_database.fill(tmp_path)
    change = began(names.FORMAT + 1, App)
    monkeypatch.setattr(names, "CHANGES", (*names.CHANGES, change))
    monkeypatch.setattr(names, "FORMAT", change.format)
    assert (await _read(tmp_path))[0] == [*RECORDS]
    monkeypatch.undo()
    with pytest.raises(FailedPrecondition, match="of a newer release"):
        open_sqlite(tmp_path)


async def test_details_that_were_cut_are_json_again(tmp_path: Path) -> None:
    _write(tmp_path, "0001")
    cut = '{"aliases": ["' + "x" * 4082
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("UPDATE audit SET details = ? WHERE seq = 1", (cut,))
        connection.commit()
    newest, oldest = (await _read(tmp_path))[2]
    assert json.loads(oldest.details) == {"cut": cut}
    assert newest == AUDIT[1]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("records SET body = '{' WHERE kind = 'models'", "models 'coder' .*JSONDecodeError"),
        ("records SET kind = 'spells' WHERE kind = 'models'", "spells 'coder' .*knows no such kind"),
        ("tasks SET request = '[]' WHERE seq = 1", "task 'task-1'"),
        ("tasks SET terminal = '{}' WHERE seq = 2", "task 'task-2' .*kind: None is none of answer, error, stopped"),
    ],
)
def test_a_database_that_can_not_be_brought_up_to_date_stays_as_it_was(tmp_path: Path, damage: str, told: str) -> None:
    _write(tmp_path, "0001-first")
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute(f"UPDATE {damage}")
        connection.commit()
        before = list(connection.iterdump())
    for _ in range(2):
        with pytest.raises(FailedPrecondition, match=told):
            open_sqlite(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        assert list(connection.iterdump()) == before


async def test_what_was_only_learnt_does_not_stand_in_the_way_of_the_rest(tmp_path: Path) -> None:
    _write(tmp_path, "0001-first")
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("UPDATE records SET body = '{' WHERE kind = 'sources'")
        connection.commit()
    records, tasks, _ = await _read(tmp_path)
    assert [type(record) for record in records] == [ModelRecord]
    assert len(tasks) == len(TASKS)


async def _contents_of(folder: Path, name: str) -> tuple[list[Record], list[KeptTask], list[AuditEntry]]:
    _write(folder, name)
    return await _read(folder)


def _write(folder: Path, name: str) -> None:
    with closing(sqlite3.connect(folder / FILE)) as connection:
        connection.executescript(stored_database.path_of(name).read_text())


async def _read(folder: Path) -> tuple[list[Record], list[KeptTask], list[AuditEntry]]:
    store = open_sqlite(folder)
    try:
        await store.begin_incarnation()
        return await store.records(), await store.tasks(), await store.audit(None, 10)
    finally:
        await store.close()


def _copies_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if ".before-" in path.name]


def _format(name: str) -> int:
    return FORMATS[name] if name in FORMATS else int(name.partition(".")[2])


def _in_tables_of(name: str, task: KeptTask) -> KeptTask:
    if name < "0003":
        task = dataclasses.replace(task, promise=None)
    if name < "0004" and task.ending is not None:
        task = dataclasses.replace(task, ending=dataclasses.replace(task.ending, log_epoch=1))
    return task


def _without(stored: dict[str, Any], change: Change) -> dict[str, Any]:
    """If it has all fields of the change's type."""
    if set(names.BY_TYPE[change.type].fields) <= stored.keys():
        return {name: value for name, value in stored.items() if name not in change.values}
    return stored


def _before(changes: Sequence[Change], whole: Any) -> Any:
    """The value with what the changes say instead of what came with them."""
    if isinstance(whole, tuple):
        return tuple(_before(changes, item) for item in whole)
    if not dataclasses.is_dataclass(whole) or isinstance(whole, type):
        return whole
    parts = {field.name: _before(changes, getattr(whole, field.name)) for field in dataclasses.fields(whole)}
    for change in changes:
        if change.type is type(whole):
            parts |= _said_by(change)
    return type(whole)(**parts)


def _said_by(change: Change) -> Mapping[str, Any]:
    """Its values by what Python calls them."""
    hints = typing.get_type_hints(change.type)
    attributes = {name: names.BY_TYPE[change.type].attribute(name) for name in change.values}
    return {it: codec.load(hints[it], json.dumps(change.values[name])) for name, it in attributes.items()}


def _parts(whole: Any) -> Iterator[Any]:
    """All dataclasses in it, itself included."""
    if isinstance(whole, tuple):
        for item in whole:
            yield from _parts(item)
    elif dataclasses.is_dataclass(whole) and not isinstance(whole, type):
        yield whole
        for field in dataclasses.fields(whole):
            yield from _parts(getattr(whole, field.name))


def _beside_defaults(part: Any) -> Iterator[tuple[type, str]]:
    for field in dataclasses.fields(part):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if getattr(part, field.name) != default:
            yield type(part), field.name
