"""The payload of a task, which holds its prompt, gets a column of its own, and goes once the task has ended."""

import base64
import json

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_tasks = sa.table("tasks", sa.column("seq"), sa.column("request"), sa.column("state"), sa.column("payload"))


def upgrade() -> None:
    op.add_column("tasks", sa.Column("payload", sa.LargeBinary))
    connection = op.get_bind()
    for seq in connection.execute(sa.select(_tasks.c.seq)).scalars().all():
        _move_payload(connection, seq)


def _move_payload(connection: sa.Connection, seq: int) -> None:
    """One row at a time: prompts are long."""
    is_it = _tasks.c.seq == seq
    row = connection.execute(sa.select(_tasks).where(is_it)).one()
    try:
        request = json.loads(row.request)
        payload = base64.b64decode(request["payload"])
    except (KeyError, TypeError, ValueError):
        return  # the reader of this row reports it
    text = json.dumps({**request, "payload": ""}, ensure_ascii=False, separators=(",", ":"))
    values = {"request": text, "payload": payload if row.state is None else None}
    connection.execute(sa.update(_tasks).where(is_it).values(values))
