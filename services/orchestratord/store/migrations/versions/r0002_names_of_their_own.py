"""Names that are the store's own, and a number for the format of records.

Ends of tasks and actions of the audit log were called as Python's classes were; details that were too long were cut
without regard to what they said.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_TERMINALS = {"TaskEnd": "answer", "TaskError": "error", "Stopped": "stopped"}

_ACTIONS = {
    "ModelRegistered": "model.registered",
    "ModelStateSet": "model.state_set",
    "ModelDeleted": "model.deleted",
    "ModelLoadAsked": "model.load_asked",
    "ModelUnloadAsked": "model.unload_asked",
    "ModelVerified": "model.verified",
    "WorkerStopAsked": "worker.stop_asked",
    "AssignmentSet": "assignment.set",
    "AssignmentDeleted": "assignment.deleted",
    "DeviceReleaseAsked": "device.release_asked",
    "DeviceResumeAsked": "device.resume_asked",
    "PoolDrainAsked": "pool.drain_asked",
    "NodeForgotten": "node.forgotten",
    "AppCreated": "app.created",
    "AppUpdated": "app.updated",
    "AppDeleted": "app.deleted",
    "SessionDeleted": "session.deleted",
}

_LONGEST_DETAILS = 4096

_tasks = sa.table("tasks", sa.column("seq"), sa.column("terminal"))
_audit = sa.table("audit", sa.column("seq"), sa.column("action"), sa.column("details"))


def upgrade() -> None:
    op.create_table("record_format", sa.Column("number", sa.Integer, nullable=False), sa.PrimaryKeyConstraint("number"))
    connection = op.get_bind()
    connection.execute(sa.text("INSERT INTO record_format (number) VALUES (0)"))
    _name_terminals(connection)
    for before, after in _ACTIONS.items():
        connection.execute(sa.update(_audit).where(_audit.c.action == before).values(action=after))
    _mend_details(connection)


def _name_terminals(connection: sa.Connection) -> None:
    for row in connection.execute(sa.select(_tasks).where(_tasks.c.terminal.is_not(None))).all():
        try:
            terminal = json.loads(row.terminal)
            named = {"kind": _TERMINALS[terminal.pop("class")], **terminal}
        except (KeyError, ValueError):
            continue  # the reader of this row reports it
        text = json.dumps(named, ensure_ascii=False, separators=(",", ":"))
        connection.execute(sa.update(_tasks).where(_tasks.c.seq == row.seq).values(terminal=text))


def _mend_details(connection: sa.Connection) -> None:
    """What was cut is kept as it is, as one text."""
    long = sa.func.length(_audit.c.details) >= _LONGEST_DETAILS
    for row in connection.execute(sa.select(_audit).where(long)).all():
        if not _is_json(row.details):
            details = json.dumps({"cut": row.details}, ensure_ascii=False)
            connection.execute(sa.update(_audit).where(_audit.c.seq == row.seq).values(details=details))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
