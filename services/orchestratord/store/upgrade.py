"""Brings everything that is stored as JSON from an earlier format to that of this release."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Column, Connection, Row, Table, select, update

from llorch.logs import get_logger
from orchestratord.core.facts.task import TaskRequest, Terminal
from orchestratord.store import codec, schema
from orchestratord.store.kinds import BY_NAME

_log = get_logger("orchestratord")


def upgrade_all(connection: Connection, present: int) -> None:
    """`present` is the format of what is there. What can't be brought up to date stays, and its reader tells of it."""
    for table in (schema.records, schema.journal):
        _upgrade_column(connection, table, table.c.body, lambda row: BY_NAME[row.kind].type, present)
    tasks = schema.tasks
    _upgrade_column(connection, tasks, tasks.c.request, lambda _: TaskRequest, present)
    _upgrade_column(connection, tasks, tasks.c.terminal, lambda _: Terminal, present)


def _upgrade_column(
    connection: Connection, table: Table, column: Column[Any], kind_of: Callable[[Row[Any]], Any], present: int
) -> None:
    key = tuple(table.primary_key.columns)
    for row in connection.execute(select(table).where(column.is_not(None))).all():
        identity = {part.name: getattr(row, part.name) for part in key}
        try:
            body = codec.upgrade(kind_of(row), getattr(row, column.name), present)
        except (KeyError, codec.Unreadable) as error:
            _log.warning("not_brought_up_to_date", table=table.name, **identity, error=str(error))
            continue
        connection.execute(update(table).filter_by(**identity).values({column.name: body}))
