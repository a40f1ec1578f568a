"""The first tables: the cluster's epoch, tasks, records, the journal of decisions, the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "cluster",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("cluster_id", sa.String(128), nullable=False),
        sa.Column("control_epoch", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "tasks",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("task_id", sa.String(128), nullable=False, unique=True),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("accepted_at_ms", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16)),
        sa.Column("terminal", sa.Text),
        sa.Column("output", sa.LargeBinary),
        sa.Column("ended_at_ms", sa.BigInteger),
    )
    op.create_table(
        "records",
        sa.Column("kind", sa.String(32), primary_key=True),
        sa.Column("record_key", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "journal",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("record_key", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("journal_by_kind", "journal", ["kind", "seq"])
    op.create_table(
        "audit",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("correlation_id", sa.String(128), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("outcome", sa.String(64), nullable=False),
    )
