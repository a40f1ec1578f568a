"""Brings everything that is stored as JSON from an earlier format to that of this release."""

from typing import Any

from sqlalchemy import Column, Connection, Row, Table, select, update

from llorch.logs import get_logger
from orchestratord.core.facts.promise import Promise
from orchestratord.core.facts.task import TaskRequest, Terminal
from orchestratord.store import codec, schema
from orchestratord.store.kinds import BY_NAME
from orchestratord.store.unreadable import unknown_kind, unreadable

_log = get_logger("orchestratord")


def upgrade_all(connection: Connection, present: int) -> None:
    """`present` is the format of what is there.

    Raises FailedPrecondition for what has to be read and can't be brought up to date. What was only learnt stays as it
    is then, and its reader passes over it.
    """
    for table in (schema.records, schema.journal):
        for row in connection.execute(select(table)).all():
            _upgrade_record(connection, table, row, present)
    tasks = schema.tasks
    for seq in connection.execute(select(tasks.c.seq)).scalars().all():  # one at a time: prompts and outputs are long
        _upgrade_task(connection, connection.execute(select(tasks).where(tasks.c.seq == seq)).one(), present)


def _upgrade_record(connection: Connection, table: Table, row: Row[Any], present: int) -> None:
    kind = BY_NAME.get(row.kind)
    if kind is None:
        raise unknown_kind(row.kind, row.record_key)
    try:
        body = _upgraded(kind.type, row.body, present)
    except codec.Unreadable as error:
        if not kind.volatile:
            raise unreadable(kind.name, row.record_key, str(error)) from None
        _log.warning("record_not_brought_up_to_date", kind=kind.name, key=row.record_key, error=str(error))
        return
    _put(connection, table, row, table.c.body, body)


def _upgrade_task(connection: Connection, row: Row[Any], present: int) -> None:
    tasks = schema.tasks
    try:
        _put(connection, tasks, row, tasks.c.request, _upgraded(TaskRequest, row.request, present))
        if row.terminal is not None:
            _put(connection, tasks, row, tasks.c.terminal, _upgraded(Terminal, row.terminal, present))
        if row.promise is not None:
            _put(connection, tasks, row, tasks.c.promise, _upgraded(Promise, row.promise, present))
    except codec.Unreadable as error:
        raise unreadable("task", row.task_id, str(error)) from None


def _upgraded(kind: Any, text: str, present: int) -> str:
    """It is read as well, so that what this release can't read stops the change and not the start after it."""
    upgraded = codec.upgrade(kind, text, present)
    codec.load(kind, upgraded)
    return upgraded


def _put(connection: Connection, table: Table, row: Row[Any], column: Column[Any], text: str) -> None:
    identity = {part.name: getattr(row, part.name) for part in table.primary_key.columns}
    connection.execute(update(table).filter_by(**identity).values({column.name: text}))
